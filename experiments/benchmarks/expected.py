"""How near ways to expect a skipped call's velocity come to the one that the model gives. Run by `scripts/bench.py expected`.

Sections of the demo are made with all steps. Then each velocity is expected from two or three earlier ones, as if the calls
between them, and up to two after them, had been skipped. A relative error counts as much as there is noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from framepack_core.caching import DAMPING
from scripts.support.pack import load_comfyui

STEPS = 25
GAPS = ((2, 1), (2, 2), (3, 2), (3, 3), (4, 3))  # steps between known calls, and from the last of them to what is expected


class Call(NamedTuple):
    """A call of the model: the noise level, what it was given, and its velocity."""

    sigma: float
    x: Tensor
    velocity: Tensor

    @property
    def x0(self) -> Tensor:
        return self.x - self.sigma * self.velocity


Way = Callable[[Sequence[Call], Call], Tensor]  # from three known calls, and one whose velocity is to be expected


def line(known: Sequence[tuple[float, Tensor]], sigma: float, damping: float) -> Tensor:
    """On the line through the last two."""
    (before, first), (last, second) = known[-2:]
    return torch.lerp(first, second, 1 + damping * (sigma - last) / (last - before))


def parabola(known: Sequence[tuple[float, Tensor]], sigma: float) -> Tensor:
    """On the parabola through three (Neville's scheme)."""
    (s0, _), _, (s2, _) = known
    early, late = line(known[:2], sigma, 1.0), line(known[1:], sigma, 1.0)
    return torch.lerp(early, late, (sigma - s0) / (s2 - s0))


def velocities(known: Sequence[Call]) -> list[tuple[float, Tensor]]:
    return [(call.sigma, call.velocity) for call in known]


def videos(known: Sequence[Call]) -> list[tuple[float, Tensor]]:
    return [(call.sigma, call.x0) for call in known]


WAYS: dict[str, Way] = {
    f"the line through the last two, with {DAMPING:g} of its slope": lambda known, call: line(
        velocities(known), call.sigma, DAMPING
    ),
    "the line through the last two": lambda known, call: line(velocities(known), call.sigma, 1.0),
    "the last one": lambda known, call: known[-1].velocity,
    "the parabola through the last three": lambda known, call: parabola(velocities(known), call.sigma),
    "0.3 of the parabola, 0.7 of the damped line": lambda known, call: torch.lerp(
        line(velocities(known), call.sigma, DAMPING), parabola(velocities(known), call.sigma), 0.3
    ),
    f"from the video (x0) on its line, with {DAMPING:g} of its slope": lambda known, call: (
        (call.x - line(videos(known), call.sigma, DAMPING)) / call.sigma
    ),
    "from the last video (x0)": lambda known, call: (call.x - known[-1].x0) / call.sigma,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py expected", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scenes", type=int, default=5, help="start images, each with noise of its own (default: %(default)s)")
    options = parser.parse_args()
    load_comfyui(options.comfyui)
    sections = list(recorded(options.scenes))
    errors = {name: mean_error(way, sections) for name, way in WAYS.items()}
    usual = next(iter(errors.values()))
    for name, error in errors.items():
        print(f"{name}: {error:.4f} ({error / usual - 1:+.0%})")
    return 0


def recorded(scenes: int) -> Iterator[list[Call]]:
    """The calls of a first section of each scene, inverted and forward in turn."""
    from comfy.patcher_extension import WrappersMP

    from experiments.study.run import quiet_comfyui
    from experiments.study.studio import Studio
    from experiments.study.videos import Video, motion_of
    from framepack_core.orders import FORWARD, INVERTED

    quiet_comfyui()
    studio, calls = Studio(), []

    def record(executor, x: Tensor, *args, **kwargs) -> Tensor:
        velocity = executor(x, *args, **kwargs)
        options = kwargs["transformer_options"] if "transformer_options" in kwargs else args[-1]
        calls.append(Call(float(options["sigmas"][0]), x.clone(), velocity))
        return velocity

    studio.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "record", record)
    for scene in range(scenes):
        order = (INVERTED, FORWARD)[scene % 2]
        studio.sample([Video(scene, motion_of(scene), 1, order.name, order.layout, steps=STEPS)])
        yield calls[:]
        calls.clear()


def mean_error(way: Way, sections: Sequence[Sequence[Call]]) -> float:
    """Of all places in the sections where the calls are there; the last one is never expected."""
    errors = [
        error(way([calls[last - 2 * gap], calls[last - gap], calls[last]], call), call)
        for calls in sections
        for gap, ahead in GAPS
        for last in range(2 * gap, len(calls) - 1 - ahead)
        for call in [calls[last + ahead]]
    ]
    return sum(errors) / len(errors)


def error(expected: Tensor, call: Call) -> float:
    return ((expected - call.velocity).norm() / call.velocity.norm()).item() * call.sigma


if __name__ == "__main__":
    sys.exit(main())
