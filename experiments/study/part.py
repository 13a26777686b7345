"""What the parts of the page share: how they choose results, and where their images are.

A part has a method for each name in the template. It returns text, empty if there are no results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from experiments.study.picks import Found, obeys
from experiments.study.results import Results
from experiments.study.videos import Amount, Video, Way
from framepack_core.orders import ORDERS

IMAGES = Path("images") / "experiments"

Made = list[tuple[Video, Found]]
Experiment = Callable[[Amount], Iterator[Video]]


class Part:
    """Methods without a leading underscore are names in the template."""

    def __init__(self, results: Results, amount: Amount, way: Way, output: Path) -> None:
        self.results, self.amount, self.way, self.output = results, amount, way, output

    def _of(self, videos: Iterable[Video]) -> Made:
        """Those of the videos that have been made."""
        return [(video, self.results[video.to_dict()]) for video in self.way.of(videos) if video.to_dict() in self.results]

    def _by_order(self, experiment: Experiment) -> dict[str, Made]:
        made = self._of(experiment(self.amount))
        return {order: [(video, found) for video, found in made if video.order == order] for order in ORDERS}

    def _image(self, name: str) -> Path:
        return self.output / IMAGES / f"{name}.png"


def obeyed(made: Made) -> list[bool]:
    """A video obeys if every shape in it that can be judged does."""
    return [obeys(found) for _, found in made]


def embed(name: str, caption: str) -> str:
    return f"![{caption}]({(IMAGES / name).as_posix()}.png)"
