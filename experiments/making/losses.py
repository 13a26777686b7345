"""The transformer's loss on films that it was trained on and on ones that it never saw.

Where the former is lower, more films may help. But forty films differ from forty others by up to a quarter by themselves, so it
takes weights that saw neither to tell. Where both are the same, only more steps or a larger model would help.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from framepack_core.orders import ORDERS, Order
from framepack_core.training.preparation import Run, prepare
from framepack_core.training.settings import Settings
from framepack_core.training.train import loss_of

BATCHES = 20


class Loss(NamedTuple):
    """Means: of sections that are sampled first, which see no others, and of later ones. The lower the better."""

    first: float
    later: float


def report(films: dict[str, Path], checkpoint: Path) -> Iterator[str]:
    """A line for each folder of encoded films and each order."""
    for name, folder in films.items():
        for order in ORDERS.values():
            first, later = loss(folder, checkpoint, order)
            yield f"{name}, {order}: {first:.3f} of sections that are sampled first, {later:.3f} of later ones"


@torch.no_grad()
def loss(folder: Path, checkpoint: Path, order: Order, batches: int = BATCHES) -> Loss:
    """Over so many batches of each kind: the same sections, noise and noise levels for every folder and checkpoint."""
    run = prepare(settings(folder, checkpoint, order))
    run.model.eval()
    found: dict[bool, list[float]] = {True: [], False: []}
    for step in count():
        values = found[run.examples.draw(step, 0)[0].section.number == 0]
        if len(values) < batches:
            values.append(loss_at(run, step))
        elif all(len(values) == batches for values in found.values()):
            break
    return Loss(*(statistics.fmean(found[is_first]) for is_first in (True, False)))


def settings(folder: Path, checkpoint: Path, order: Order) -> Settings:
    """The noise levels and the weight of what moves are those of the demo's training."""
    return Settings(
        folder, folder, start=checkpoint, layouts=(order.layout,), orders=(order.name,), min_sections=2, max_sections=4,
        end_probability=0, caption_dropout=0, sigmas="uniform", shift=8, motion_weight=3, batch=8, ema=0,
        held_out=0, precision="no",
    )  # fmt: skip


def loss_at(run: Run, step: int) -> float:
    batch = run.examples.batch(step, 0, range(run.settings.batch))
    return loss_of(run, batch.to(run.accelerator.device)).item()
