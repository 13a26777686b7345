"""The benchmark on a real card: what it makes of measurements, and its measuring, with a tiny transformer on the CPU."""

import json
import sys
from dataclasses import asdict, replace

import comfy.memory_management
import pytest
import torch

from experiments.benchmarks import gpu
from experiments.benchmarks.gpu import Call, Capped, Speed
from scripts.support.trial import RELEASED, SMALL, operations

CALLS = (Call(1, 17500, 1_600_000_000), Call(26, 17500, 1_601_000_000), Call(50, 17500, 1_600_000_000))
SPEED = Speed(seconds=(2.0, 9.0, 2.2), decode=5.0, operations=500e12, peak=500e12, calls=CALLS)
FITS = Capped(8.0, sampling=7.5e9, decoding=6e9, step=4.0, decode=7.0)


def plain(result: Speed | Capped) -> dict:
    """As it comes from the process of its own."""
    return json.loads(json.dumps(asdict(result)))


def test_the_step_is_the_median_and_its_share_that_of_a_product():
    assert SPEED.step == 2.2
    assert SPEED.share == pytest.approx(1 / 2.2)


def test_results_of_other_processes_are_the_same_as_one_s_own():
    asked = []

    def part(name: str, *cap: float) -> dict:
        asked.append((name, *cap))
        return plain(SPEED if name == "speed" else replace(FITS, cap=cap[0]))

    speed, capped = gpu.measured((6.0, 8.0), part)

    assert speed == SPEED
    assert asked == [("speed",)]
    assert list(capped) == [replace(FITS, cap=6.0), FITS]
    assert asked == [("speed",), ("capped", 6.0), ("capped", 8.0)]


def test_a_good_card_passes_and_the_tables_say_what_was_measured(capsys):
    assert gpu.report(SPEED, [FITS]) == 0

    text = capsys.readouterr().out
    assert "2.20 s, the median of 3" in text
    assert "share of that: 45%" in text
    assert "| 8 GiB | 7.5, 4.00 | 6.0, 7.0 |" in text
    assert "a video of 1800 frames: 50 sections, 50 min at 25 steps, predicted" in text  # 50 x (25 x 2.2 s + 5 s)
    assert "50: 17500, 1.60 GB: constant" in text


def test_what_is_measured_is_printed_before_the_next_card_is(capsys):
    def capped():
        assert "2.20 s, the median of 3" in capsys.readouterr().out
        yield FITS
        assert "| 8 GiB |" in capsys.readouterr().out

    assert gpu.report(SPEED, capped()) == 0


def test_a_card_that_is_too_small_fails_and_is_named(capsys):
    assert gpu.report(SPEED, [Capped(6.0, error="sampling ran out of the card's memory")]) == 1

    assert "| 6 GiB | sampling ran out of the card's memory | |" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [replace(CALLS[2], tokens=18000), replace(CALLS[2], memory=1_700_000_000)])
def test_a_long_video_whose_calls_grow_fails(changed, capsys):
    assert gpu.report(replace(SPEED, calls=(*CALLS[:2], changed)), [FITS]) == 1

    assert "NOT CONSTANT" in capsys.readouterr().out


def test_memory_that_was_in_use_before_a_part_is_not_the_part_s():
    found = gpu.without(plain(FITS), before=5_000_000_000)

    assert (found["sampling"], found["decoding"], found["step"]) == (2.5e9, 1e9, 4.0)
    assert gpu.without(plain(SPEED), before=5_000_000_000) == plain(SPEED)


def test_without_a_card_it_ends_with_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "ComfyUI"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(SystemExit) as ended:
        gpu.main()

    assert str(ended.value).startswith("framepack: torch sees no CUDA or ROCm card")
    assert "\n" not in str(ended.value)


def test_operations_of_the_released_size_are_those_of_its_products():
    section = gpu.long_video().fill(1 + gpu.long_video().generated)[0]
    tokens = section.target_tokens(RELEASED.height, RELEASED.width) + section.context_tokens(RELEASED.height, RELEASED.width)
    length, blocks = tokens + RELEASED.text + RELEASED.image, RELEASED.double + RELEASED.single
    matrices = 2 * length * 12 * RELEASED.hidden**2 * blocks
    attention = 4 * length**2 * RELEASED.hidden * blocks

    assert tokens == 13_680 + 3_820
    assert operations(RELEASED, section) == pytest.approx(matrices + attention, rel=0.03)


def test_operations_are_counted_with_dynamic_vram_too(monkeypatch):
    section = gpu.long_video().fill(1 + gpu.long_video().generated)[0]
    without = operations(SMALL, section)
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)

    assert operations(SMALL, section) == without


def test_speed_is_measured_with_the_whole_plan_on_a_tiny_transformer():
    found = gpu.speed_of(SMALL, "bf16", runs=2, side=64)

    assert len(found.seconds) == 2
    assert [call.section for call in found.calls] == [1, 26, 50]
    assert found.constant
    assert min(found.step, found.decode, found.operations, found.peak) > 0
    assert Speed(**asdict(found) | {"calls": found.calls}) == found


def test_a_card_s_part_runs_on_a_tiny_transformer():
    found = gpu.capped_of(SMALL, "fp8", runs=1, cap=8.0)

    assert (found.cap, found.error) == (8.0, "")
    assert min(found.step, found.decode) > 0
