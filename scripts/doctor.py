"""What is wrong, and what to expect: `python3 scripts/doctor.py [--comfyui PATH] [--quick] [-- COMFYUI'S FLAGS]`

Looks at ComfyUI, torch, the card, disks and model files. Runs a section and its decode with random weights of the released
size, which takes a few minutes and downloads nothing. Says which file suits the card, and how long videos will take. The
report, framepack_report.md, can be attached to an issue: neither your name nor folders outside ComfyUI's are in it. Pass the
flags that you start ComfyUI with after `--`, because they decide attention and memory:

    python3 scripts/doctor.py -- --lowvram --use-sage-attention

Run it with ComfyUI's Python, while ComfyUI itself is not running. The exit status is 1 if something prevents use, otherwise 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.doctor import comfyui as checks
from scripts.support.doctor import machine, report
from scripts.support.doctor.findings import Chapter, Finding, look, unseen
from scripts.support.doctor.privacy import known_places, owner, without_personal_paths
from scripts.support.environment import ROOT, SetupError, cache_directory, existing_comfyui, venv_python

if TYPE_CHECKING:
    from scripts.support.doctor.running import Trial

Check = tuple[str, Callable[[], Finding | Iterable[Finding]]]


def main() -> int:
    options = arguments(sys.argv[1:])
    comfyui = find_comfyui(options.comfyui)
    if not importlib.util.find_spec("torch"):
        return run_elsewhere(comfyui)
    output = options.output.absolute()
    if not (output.parent.is_dir() and os.access(output.parent, os.W_OK)):
        sys.exit(f"framepack: {output.parent} is no folder that can be written to; name another file with --output")
    try:
        chapters = examine(comfyui, options)
        write(output, chapters, comfyui)
    except KeyboardInterrupt:
        sys.exit("framepack: interrupted; no report was written")
    except OSError as error:
        sys.exit(f"framepack: {output} cannot be written: {error.strerror or error}; name another file with --output")
    found = [finding for chapter in chapters for finding in chapter.findings]
    print(f"\n{report.verdict(found)}; the report is {options.output}")
    return int(any(finding.status == "fault" for finding in found))


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The doctor's own options, and in `flags` what follows `--`."""
    parser = argparse.ArgumentParser(
        prog="scripts/doctor.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="ComfyUI's folder (default: the one around this pack)")
    parser.add_argument("--quick", action="store_true", help="leave out the run with random weights")
    parser.add_argument("--small", action="store_true", help="run a tiny transformer instead, on a CPU too")
    parser.add_argument("--output", type=Path, default=Path("framepack_report.md"), help="the report (default: %(default)s)")
    end = list(given).index("--") if "--" in given else len(given)
    return parser.parse_args(given[:end], argparse.Namespace(flags=list(given[end + 1 :])))


def find_comfyui(chosen: Path | None) -> Path:
    """The given one, the one around this pack or in COMFYUI_PATH, or else the one that the tests use."""
    try:
        found = chosen.resolve() if chosen else existing_comfyui() or cache_directory() / "ComfyUI"
    except SetupError as error:
        sys.exit(f"framepack: {error}")
    if not (found / "main.py").is_file():
        sys.exit(f"framepack: there is no ComfyUI in {found}: name its folder, the one with main.py, with --comfyui")
    return found


def run_elsewhere(comfyui: Path) -> int:
    """Run again in ComfyUI's Python, because this one has no torch."""
    for python in pythons(comfyui):
        if python.is_file() and not subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
            return subprocess.run([python, __file__, *sys.argv[1:]]).returncode
    sys.exit(
        "framepack: this Python has no torch. Run the doctor with the Python that runs ComfyUI, for example "
        f"{venv_python(comfyui / 'venv')} {Path(__file__).name}"
    )


def pythons(comfyui: Path) -> list[Path]:
    """Where ComfyUI's Python usually is: in a virtual environment, in the portable build, in the tests' environment."""
    environments = [place / name for place in (comfyui, comfyui.parent) for name in (".venv", "venv")]
    portable = comfyui.parent / "python_embeded" / "python.exe"
    return [*map(venv_python, environments), portable, venv_python(cache_directory() / "venv")]


# What is looked at


def examine(comfyui: Path, options: argparse.Namespace) -> list[Chapter]:
    """All chapters, each printed as soon as it is complete. Those that need ComfyUI come after it has started."""
    torch, drivers = machine.read_torch(), machine.read_drivers()
    has_card = isinstance(torch, machine.Torch) and torch.sees_a_card
    started = start(comfyui, options.flags if has_card else [*options.flags, "--cpu"])
    chapters = [
        chapter(
            "Computer",
            ("system", machine.system),
            ("Python", machine.python),
            ("RAM", machine.memory),
            ("torch", lambda: machine.torch_build(torch, drivers)),
            ("NVIDIA driver", lambda: machine.driver(drivers)),
        ),
        chapter(
            "ComfyUI",
            ("ComfyUI", lambda: checks.place(comfyui, started)),
            ("ComfyUI's version", lambda: checks.version(comfyui)),
        ),
    ]
    return chapters + (with_comfyui(options) if started is None else [])


def start(comfyui: Path, flags: Sequence[str]) -> BaseException | None:
    """Start ComfyUI in this process, as far as its server; returns the error with which it does not start."""
    from scripts.support.pack import start_comfyui

    try:
        start_comfyui(comfyui, flags)
    except (Exception, SystemExit) as error:
        return error
    return None


def with_comfyui(options: argparse.Namespace) -> list[Chapter]:
    card, seen = read_card()
    pack = chapter(
        "The pack",
        ("the pack", lambda: checks.installed(checks.custom_nodes())),
        ("nodes", checks.nodes),
        ("private symbols", checks.symbols),
        ("attention", checks.attention),
        ("flags", lambda: checks.flags(options.flags)),
    )
    around = [
        chapter("Card", ("card", lambda: seen)),
        chapter("Disks", ("disks", lambda: machine.disks(checks.written_to()))),
        chapter(
            "Models",
            ("companions", lambda: model_findings("companions")),
            ("checkpoints", lambda: model_findings("checkpoints")),
        ),
    ]
    return [pack, *around, *trial_and_expectation(options, card)]


def read_card() -> tuple[machine.Card | None, list[Finding]]:
    """The card and what there is to say of it."""
    try:
        card = machine.read_card()
    except Exception as error:
        return None, [unseen("card", error)]
    return card, look("card", lambda: machine.graphics_card(card))


def model_findings(which: str) -> Iterable[Finding]:
    from scripts.support.doctor import models

    check = {"companions": models.companions, "checkpoints": models.checkpoints}[which]
    return check(models.linked_files(), models.all_files(models.model_folders()))


def trial_and_expectation(options: argparse.Namespace, card: machine.Card | None) -> list[Chapter]:
    """Run a section with random weights if there is a card, or if a small one will do, and say what follows from it."""
    trial, seen = run_trial(options, card)
    run = chapter("A section with random weights", ("run", lambda: seen))
    if card is None:
        return [run]
    return [
        run,
        chapter("What to expect", ("file to take", lambda: files_to_take(card)), ("times", lambda: times(trial))),
    ]


def run_trial(options: argparse.Namespace, card: machine.Card | None) -> tuple[Trial | None, Iterable[Finding]]:
    """The run and what there is to say of it; None if there was none."""
    what = "sampling and decoding"
    if options.quick:
        return None, [Finding(what, "not run, because of --quick")]
    if card is None and not options.small:
        remedy = "--small runs a tiny transformer on the CPU, which shows that the code works and nothing about speed"
        return None, [Finding(what, "not run: there is no card", remedy=remedy)]
    print("\nrunning a section with random weights ...", flush=True)
    try:
        from scripts.support import trial
        from scripts.support.doctor import running

        format = "bf16" if options.small else running.format_for(card)
        found = running.run(trial.SMALL if options.small else trial.RELEASED, format)
    except Exception as error:
        return None, [unseen(what, error)]
    return found, found.findings


def times(found: Trial | None) -> Iterable[Finding]:
    from scripts.support import trial
    from scripts.support.doctor import expectation

    if found and found.size == trial.RELEASED and found.step and found.decode:
        yield from expectation.times(found.step, found.decode)


def files_to_take(card: machine.Card) -> Iterable[Finding]:
    import psutil

    from experiments.plans.memory import room
    from scripts.support import trial
    from scripts.support.doctor import expectation
    from scripts.support.quantising.sizes import released_sizes

    sizes = released_sizes() | {expectation.FP8_FILE: trial.nbytes(trial.RELEASED, "fp8")}
    return expectation.files(card, psutil.virtual_memory().total, sizes, room)


def chapter(title: str, *made: Check) -> Chapter:
    """The findings of some checks, printed."""
    found = Chapter(title, tuple(finding for what, check in made for finding in look(what, check)))
    print("\n".join(report.lines(found)), flush=True)
    return found


def write(output: Path, chapters: Sequence[Chapter], comfyui: Path) -> None:
    """The report, complete or not at all, without anything that says whose computer this is. Raises OSError."""
    from framepack_core.media.files import whole_file

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r"^version = \"(.+)\"", project, re.MULTILINE)
    text = report.markdown(chapters, version[1] if version else "unknown", date.today())
    with whole_file(output) as unfinished:
        unfinished.write_text(without_personal_paths(text, known_places(comfyui, ROOT), owner()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
