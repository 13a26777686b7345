"""Runs of kept sections are removed by age and size, and nothing else is."""

import os
import time
from pathlib import Path

import torch

from framepack_core.store.kept import Run
from framepack_core.store.pruning import DAY, Limits, prune


def runs_of_age(folder: Path, *days: float) -> list[Path]:
    """Runs of a thousand bytes each that were last used this many days ago."""
    runs = []
    for number, age in enumerate(days):
        run = folder / f"{number:064x}"
        run.mkdir(parents=True)
        (run / "0001-a.safetensors").write_bytes(bytes(1000))
        used = time.time() - age * DAY
        os.utime(run, (used, used))
        runs.append(run)
    return runs


def left(runs: list[Path]) -> list[int]:
    return [number for number, run in enumerate(runs) if run.exists()]


def test_runs_go_that_were_not_used_for_too_long(tmp_path):
    runs = runs_of_age(tmp_path, 1, 31, 29)

    assert prune(tmp_path, Limits(days=30)) == []
    assert left(runs) == [0, 2]


def test_the_oldest_runs_go_until_the_rest_fits(tmp_path):
    runs = runs_of_age(tmp_path, 1, 4, 2, 3)

    prune(tmp_path, Limits(gigabytes=2.5e-6))

    assert left(runs) == [0, 2]


def test_the_current_run_is_never_removed(tmp_path):
    runs = runs_of_age(tmp_path, 1, 100)

    prune(tmp_path, Limits(gigabytes=0), keep=runs[1])

    assert left(runs) == [1]


def test_zero_gigabytes_keep_nothing(tmp_path):
    runs = runs_of_age(tmp_path, 0, 1)

    prune(tmp_path, Limits(gigabytes=0))

    assert left(runs) == []


def test_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "notes.txt").write_text("")

    prune(tmp_path, Limits(gigabytes=0, days=0))

    assert {path.name for path in tmp_path.iterdir()} == {"mine", "notes.txt"}


def test_reading_a_run_makes_it_young(tmp_path):
    run, other = tmp_path / ("0" * 64), tmp_path / ("1" * 64)
    for folder in (run, other):
        Run(folder, ["key"]).add(torch.zeros(1, 16, 9, 2, 2))
        os.utime(folder, (0, 0))

    list(Run(run, ["key"]).read())
    prune(tmp_path, Limits())

    assert run.exists() and not other.exists()


def test_there_is_nothing_to_prune_in_a_folder_that_is_not_there(tmp_path):
    assert prune(tmp_path / "absent", Limits()) == []
