"""The store of kept sections: what is found again, and what is refused."""

import dataclasses
import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from framepack_core.plan import Plan
from framepack_core.store import kept
from framepack_core.store.kept import Damaged, Run, section_keys

IDENTITY = "a" * 64
SIGMAS = torch.linspace(1, 0, 5)


def keys_of(plan: Plan, identity: str = IDENTITY, sigmas: torch.Tensor = SIGMAS, **fill) -> tuple[str, ...]:
    sections = plan.fill(1 + plan.generated, **fill)
    return section_keys(identity, sections, [sigmas] * len(sections))


def latents(value: float) -> torch.Tensor:
    return torch.full((1, 2, 3, 2, 2), value)


def written(folder: Path, keys, count: int | None = None) -> Run:
    """A run whose sections hold their own number."""
    run = Run(folder, keys)
    for number in range(len(keys) if count is None else count):
        run.add(latents(number))
    return run


def values(sections: Iterable[torch.Tensor]) -> list[float]:
    return [latents.flatten()[0].item() for latents in sections]


def read(folder: Path, keys) -> list[torch.Tensor]:
    return list(Run(folder, keys).read())


# What is found again


def test_a_new_process_finds_what_was_written_bit_by_bit(tmp_path):
    content = torch.randn(1, 16, 9, 4, 6, generator=torch.Generator().manual_seed(0))
    before = time.time()
    Run(tmp_path / "run", ("k",)).add(content)

    run = Run(tmp_path / "run", ("k",))
    (found,) = run.read()

    assert torch.equal(found, content) and found.dtype == content.dtype
    assert before <= run.finished[0].time <= time.time()


def test_what_was_read_is_continued(tmp_path):
    keys = keys_of(Plan.of(4.8))
    written(tmp_path, keys, 2)

    run = Run(tmp_path, keys)
    list(run.read())
    run.add(latents(2))

    assert values(read(tmp_path, keys)) == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_comes_back_as_it_was(tmp_path, dtype):
    content = torch.arange(12, dtype=dtype).view(1, 1, 3, 2, 2)
    Run(tmp_path, ("k",)).add(content)

    (found,) = read(tmp_path, ("k",))

    assert found.dtype == dtype and torch.equal(found, content)


def test_nothing_is_found_where_nothing_was_written(tmp_path):
    assert read(tmp_path / "absent", ("k",)) == []


def test_a_section_is_read_when_it_is_asked_for(tmp_path):
    """Those after it need not be in memory, nor even whole."""
    keys = keys_of(Plan.of(4.8))
    written(tmp_path, keys)
    sorted(tmp_path.iterdir())[1].write_bytes(b"damaged")

    sections = Run(tmp_path, keys).read()

    assert next(sections).flatten()[0] == 0
    with pytest.raises(Damaged, match="0002-"):
        next(sections)


def test_files_are_counted_up_to_the_first_that_is_missing(tmp_path):
    keys = keys_of(Plan.of(4.8))
    written(tmp_path, keys)
    paths = sorted(tmp_path.iterdir())
    paths[2].unlink()

    assert Run(tmp_path, keys).files() == paths[:2]
    assert Run(tmp_path, keys_of(Plan.of(6.0))).files() == []


def test_sections_count_only_up_to_the_first_that_is_missing(tmp_path):
    keys = keys_of(Plan.of(4.8))
    written(tmp_path, keys)
    sorted(tmp_path.iterdir())[2].unlink()

    assert values(read(tmp_path, keys)) == [0, 1]


def test_a_section_made_after_another_one_does_not_count(tmp_path):
    """The second section was made again and came out differently, so the third belongs to its former version."""
    keys = keys_of(Plan.of(3.6))
    written(tmp_path, keys)
    again = written(tmp_path, keys, 1)
    again.add(latents(7))

    assert values(read(tmp_path, keys)) == [0, 7]


def test_a_section_that_came_out_the_same_keeps_those_after_it(tmp_path):
    """Only the time differs."""
    keys = keys_of(Plan.of(3.6))
    written(tmp_path, keys)
    written(tmp_path, keys, 2)

    assert values(read(tmp_path, keys)) == [0, 1, 2]


# What decides a section


def test_a_longer_forward_plan_begins_with_the_sections_of_a_shorter_one():
    short, long = keys_of(Plan.of(2.4, "forward")), keys_of(Plan.of(6.0, "forward"))

    assert long[: len(short)] == short
    assert len(set(long)) == 5


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_orders_that_know_the_end_share_nothing_between_lengths(order):
    assert set(keys_of(Plan.of(2.4, order))).isdisjoint(keys_of(Plan.of(6.0, order)))


@pytest.mark.parametrize(
    "changed",
    [
        keys_of(Plan.of(3.6, "forward"), identity="b" * 64),
        keys_of(Plan.of(3.6, "forward"), sigmas=SIGMAS / 2),
        keys_of(Plan.of(3.6, "forward", window=8)),
        keys_of(Plan.of(3.6, "forward", layout="vanilla")),
        keys_of(Plan.of(3.6, "inverted")),
    ],
    ids=["identity", "sigmas", "window", "layout", "order"],
)
def test_whatever_else_changes_no_section_is_found(changed, tmp_path):
    written(tmp_path, keys_of(Plan.of(3.6, "forward")))

    assert read(tmp_path, changed) == []


def test_frames_per_second_and_a_layouts_name_decide_nothing():
    plan = Plan.of(3.6, "forward")

    assert keys_of(dataclasses.replace(plan, fps=24.0, name="custom")) == keys_of(plan)


def test_other_sigmas_of_one_section_change_those_after_it_too():
    sections = Plan.of(3.6, "forward").fill(28)
    same, changed = [SIGMAS] * 3, [SIGMAS, SIGMAS / 2, SIGMAS]

    one, other = (section_keys(IDENTITY, sections, sigmas) for sigmas in (same, changed))

    assert one[0] == other[0] and set(one[1:]).isdisjoint(other[1:])


# Damage


@pytest.fixture
def whole(tmp_path) -> Path:
    Run(tmp_path, ("k",)).add(torch.arange(24.0).view(1, 2, 3, 2, 2))
    return next(tmp_path.iterdir())


def test_a_flipped_bit_anywhere_never_gives_other_latents(whole):
    content = whole.read_bytes()
    expected, expected_latents = kept.read_section(whole, "k", "")
    refused = 0
    for place in range(len(content)):
        for bit in (0, 7):
            whole.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                found, found_latents = kept.read_section(whole, "k", "")
            except Damaged:
                refused += 1
            else:
                assert torch.equal(found_latents, expected_latents) and found == expected

    assert refused > 1.8 * len(content)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1])
def test_a_file_that_was_cut_off_is_damaged(whole, keep):
    whole.write_bytes(whole.read_bytes()[:keep])

    with pytest.raises(Damaged, match=whole.name):
        kept.read_section(whole, "k", "")


def test_a_file_of_another_run_under_this_name_is_damaged(whole):
    with pytest.raises(Damaged, match="does not match its checksum"):
        kept.read_section(whole, "other", "")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_section_that_is_not_finite_is_damaged(tmp_path, value):
    """Earlier versions have kept such sections."""
    kept.write_section(tmp_path / "0001.safetensors", "k", "", torch.full((1, 16, 9, 4, 4), value))

    with pytest.raises(Damaged, match="values that are not finite"):
        kept.read_section(tmp_path / "0001.safetensors", "k", "")


def test_a_damaged_section_goes_and_those_before_it_stay(tmp_path):
    keys = keys_of(Plan.of(4.8))
    written(tmp_path, keys)
    path = sorted(tmp_path.iterdir())[2]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run, found = Run(tmp_path, keys), []

    with pytest.raises(Damaged, match=r"0003-.* does not match its checksum"):
        found.extend(run.read())

    assert values(found) == [0, 1]
    assert not path.exists()
    run.add(latents(2))
    assert values(read(tmp_path, keys)) == [0, 1, 2, 3]


# Disks that fail


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    run = written(tmp_path, keys_of(Plan.of(4.8)), 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run.add(latents(1))

    assert len(list(tmp_path.iterdir())) == 1
    assert values(read(tmp_path, run.keys)) == [0]


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("")

    with pytest.raises(OSError):
        Run(tmp_path / "runs" / IDENTITY, ("k",)).add(latents(0))


def test_a_process_killed_while_it_writes_leaves_whole_sections_only(tmp_path, monkeypatch):
    """Killed between writing and renaming."""
    keys = keys_of(Plan.of(3.6))
    run = written(tmp_path, keys, 1)

    def killed(*names) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        patched.setattr(Path, "unlink", lambda path: None)
        with pytest.raises(SystemExit):
            run.add(latents(1))

    assert len(list(tmp_path.iterdir())) == 2
    assert values(read(tmp_path, keys)) == [0]
