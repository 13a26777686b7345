"""The benchmark of ComfyUI's ways to compute faster: its table, and its measuring with a tiny transformer."""

import json
from argparse import Namespace
from dataclasses import asdict, replace

import pytest
import torch

from experiments.benchmarks import flags
from experiments.benchmarks.flags import EXACT, PLAIN, WAYS, Found, Way
from scripts.support.trial import SMALL, transformer


@pytest.fixture
def results(tmp_path):
    def found(name: str, seconds: float, velocity: float) -> Found:
        torch.save(torch.full((4,), velocity), tmp_path / name)
        return Found((seconds, 9.0, seconds), str(tmp_path / name), 3.0)

    return {PLAIN: found("plain", 2.0, 1.1), EXACT: found("exact", 8.0, 1.0), WAYS[3]: found("other", 1.0, 1.21)}


def row(lines: list[str], way: Way) -> list[str]:
    line = next(line for line in lines if line.startswith(f"| {way.name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_way_is_compared_with_the_default_s_time_and_with_float32_s_velocity(results):
    lines = flags.table(results)

    assert row(lines, WAYS[3])[1:7] == ["`--use-sage-attention`", "bf16", "1.000", "0.50", "2.1e-01", "1.0e-01"]
    assert row(lines, PLAIN)[3:7] == ["2.000", "1.00", "1.0e-01", "0.0e+00"]


def test_a_way_that_is_not_there_is_listed_with_the_reason(results):
    lines = flags.table(results | {WAYS[4]: "not there: the package flash_attn is not installed"})

    assert row(lines, WAYS[4])[-1] == "not there: the package flash_attn is not installed"


def test_what_comfyui_warned_of_is_told(results):
    fallen = replace(results[PLAIN], notes=("Flash Attention failed, using default SDPA",))

    assert row(flags.table({PLAIN: fallen}), PLAIN)[-1] == "3 s before; Flash Attention failed, using default SDPA"


def test_every_flag_is_one_of_comfyui_s():
    from comfy.cli_args import parser

    for way in WAYS:
        parser.parse_args(way.flags)


def test_a_missing_package_is_named_before_anything_starts():
    assert "absent_package is not installed" in flags.lacking(Way("x", package="absent_package"))
    assert not flags.lacking(Way("x", package="torch"))
    assert not flags.lacking(PLAIN)


def test_steps_are_timed_and_the_first_velocity_is_kept_of_a_tiny_transformer():
    first, again = (flags.steps(transformer(SMALL, "bf16"), SMALL, 3) for _ in range(2))
    fp8 = flags.steps(transformer(SMALL, "fp8"), SMALL, 1)

    assert len(first[0]) == 3
    assert min(first[0]) > 0
    assert first[1].shape == (1, 16, 9, SMALL.height, SMALL.width)
    assert torch.equal(first[1], again[1])
    assert 0 < (fp8[1] - first[1]).norm() < 0.2 * first[1].norm()


@pytest.mark.slow
def test_a_way_is_measured_in_a_process_of_its_own(tmp_path, comfyui_path):
    options = Namespace(comfyui=comfyui_path, runs=1, depth=(1, 1), small=True, ahead=0)
    broken = Way("broken", package="absent_package")

    (one, found), (two, reason) = flags.in_turn([PLAIN, broken], options, tmp_path)

    assert (one, two) == (PLAIN, broken)
    assert isinstance(found, Found)
    assert len(found.seconds) == 1
    assert torch.load(found.velocity).isfinite().all()
    assert reason == "not there: the package absent_package is not installed"
    assert json.dumps(asdict(found))
