"""What the benchmark of FramePack Cache says of runs whose times and errors are known."""

import pytest
import torch

from experiments.benchmarks.cache import ALL, DEFAULTS, HALF, WAYS, Figures, Run, holds, report

SEEDS = 3


def runs(defaults: Run) -> dict:
    """All steps take 10 seconds, half of them 5 and are off by 0.01; the other ways are like the defaults."""
    known = {ALL: made(10, 1.0, 0), HALF: made(5, 0.5, 0.01)}
    return {way: [known.get(way, defaults)] * SEEDS for way in WAYS}


def made(seconds: float, calls: float, error: float) -> Run:
    return Run(seconds, calls, torch.full((2, 4, 4, 3), 0.5 + error))


def test_a_way_is_compared_with_all_steps_and_with_half_of_them():
    found = Figures.of(DEFAULTS, runs(made(6, 0.6, 0.005)))

    assert (found.calls, found.time) == (0.6, 0.6)
    assert found.near == pytest.approx([46.02] * SEEDS, abs=0.01)
    assert found.above_half == pytest.approx([6.02] * SEEDS, abs=0.01)


@pytest.mark.parametrize(
    ("defaults", "enough"),
    [(made(6, 0.6, 0.005), True), (made(7, 0.6, 0.005), False), (made(6, 0.6, 0.009), False), (made(6, 0.6, 0.2), False)],
    ids=["fast and near", "slow", "hardly nearer than half the steps", "far"],
)
def test_the_bounds_are_checked(defaults, enough, capsys):
    assert holds(runs(defaults)) == enough
    assert "times as fast (bound 1.6)" in capsys.readouterr().out


def test_every_way_but_all_steps_has_a_row(capsys):
    report(runs(made(6, 0.6, 0.005)))

    _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows] == [way.name for way in WAYS if way != ALL]
