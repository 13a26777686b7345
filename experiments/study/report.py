"""docs/EXPERIMENTS.md and its images, from the results and the words in report.md.

`report.md` is the document with `{names}` in it. A name stands for a table, a figure or a number from the results. Whatever has
not been run yet reads "not run".
"""

from __future__ import annotations

import platform
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch

from experiments.study.claims import Claims
from experiments.study.intervals import mean
from experiments.study.lengths import Lengths
from experiments.study.obedience import Obedience
from experiments.study.part import Part
from experiments.study.results import Results
from experiments.study.settings import Settings
from experiments.study.tables import figure, table
from experiments.study.videos import Amount, Video, Way

TEMPLATE = Path(__file__).with_name("report.md")
NOT_RUN = "not run"
WIDTH = 128


def write(results: Results, amount: Amount, way: Way, output: Path) -> None:
    """Write EXPERIMENTS.md and its images below `output`."""
    values = Values(results, amount, way, output)
    text = "\n\n".join(filled(block, values) for block in TEMPLATE.read_text(encoding="utf-8").split("\n\n"))
    output.mkdir(parents=True, exist_ok=True)
    (output / "EXPERIMENTS.md").write_text(text, encoding="utf-8")


def filled(block: str, values: Mapping[str, str]) -> str:
    """A paragraph, list or table with what its names stand for. Prose is wrapped anew, since names are longer or shorter."""
    text = re.sub(r"\{([^{}]+)\}", lambda name: values[name[1]], block)
    if text == block or text.count("\n") > block.count("\n") or "```" in block:
        return text
    return "\n".join(_wrapped(item) for item in re.split(r"\n(?=- )", text))


def _wrapped(item: str) -> str:
    indent = "  " if item.startswith("- ") else ""
    line = " ".join(item.split())
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


class Values(dict):
    """What the names in the template stand for, worked out on demand."""

    def __init__(self, results: Results, amount: Amount, way: Way, output: Path) -> None:
        super().__init__()
        self.parts = [part(results, amount, way, output) for part in PARTS]

    def __missing__(self, name: str) -> str:
        """What a method of a part returns: `colour__6__inverted` is `colour("6", "inverted")`."""
        method, *arguments = name.split("__")
        for part in self.parts:
            if hasattr(part, method):
                return getattr(part, method)(*arguments) or NOT_RUN
        raise KeyError(name)


class Making(Part):
    """How the videos were made, and the VAE by itself."""

    def steps(self) -> str:
        return str(self.way.steps)

    def shift(self) -> str:
        return f"{self.way.shift:g}" if self.way.shift else "auto"

    def weights(self) -> str:
        return self.results.weights

    def machine(self) -> str:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
        return f"{device}, {platform.machine()}, torch {torch.__version__}"

    def videos(self) -> str:
        made = [Video.from_dict(made) for made, _ in self.results.items() if "scene" in made]
        return f"{sum(video.source == 'model' and video.steps == self.way.steps for video in made)}"

    def vae(self) -> str:
        clips = [found for made, found in self.results.items() if "vae" in made]
        if not clips:
            return ""
        rows = [
            [name, figure(mean([clip[key] for clip in clips]), 2), wanted]
            for name, key, wanted in (("whole frames", "psnr", "32"), ("inside the shapes' boxes", "psnr_inside", "30"))
        ]
        return table([f"PSNR of {len(clips)} held-out clips, dB", "found", "wanted"], rows)


PARTS = (Making, Obedience, Lengths, Claims, Settings)
