"""How much is kept: the user's settings count, and failures are reported and do no other harm."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths
import pytest
import torch

from experiments.benchmarks.live import LiveBytes
from framepack_core.comfyui.sampling.kept import KeptSections, folder, limits
from framepack_core.filling import Section
from framepack_core.plan import Plan
from framepack_core.sections import generate
from framepack_core.store.identity import FILE, Identity
from framepack_core.store.kept import Finished, write_section
from framepack_core.store.pruning import Limits
from framepack_core.timeline import Timeline

SECTIONS = Plan.of(3.6).fill(28)
LATENTS = torch.ones(1, 16, 9, 4, 4)
START = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
TEXT = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))


def identity_of(**changes) -> Identity:
    """The identity of a run with some of its parts changed."""
    parts = {
        "origin": "a",
        "versions": {"framepack": "1", "comfyui": "0.30.0"},
        "machine": {"device": "cpu", "attention": "attention_pytorch", "fast": []},
        "guider": {"conds": [{"cross_attn": TEXT, "guidance": 10.0}]},
        "image": None,
        "known": {0: START},
        "seed": 1,
    }
    return Identity.of(parts | changes)


IDENTITY = identity_of()


def kept(note=lambda line: None, identity: Identity = IDENTITY) -> KeptSections:
    """Sections that hold their own number."""
    return KeptSections(identity, lambda name: [f"{number} of {name}" for number in range(3)], LATENTS.mul, note)


def files() -> list[Path]:
    return sorted(folder().glob("*/*.safetensors"))


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch) -> Path:
    """ComfyUI's folder for users, without any settings."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    for variable in ("FRAMEPACK_CHECKPOINT_GB", "FRAMEPACK_CHECKPOINT_DAYS"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "default").mkdir()
    return tmp_path


def settings(user: Path, content: str) -> None:
    (user / "default" / "comfy.settings.json").write_text(content)


def test_the_defaults_hold_where_nobody_said_anything():
    assert limits() == Limits(gigabytes=10.0, days=30.0)


def test_the_front_end_s_settings_count(user):
    settings(user, json.dumps({"FramePack.CheckpointGB": 2, "FramePack.CheckpointDays": 7.5}))

    assert limits() == Limits(gigabytes=2.0, days=7.5)


def test_the_environment_counts_more(user, monkeypatch):
    settings(user, json.dumps({"FramePack.CheckpointGB": 2, "FramePack.CheckpointDays": 7}))
    monkeypatch.setenv("FRAMEPACK_CHECKPOINT_GB", "0.5")

    assert limits() == Limits(gigabytes=0.5, days=7.0)


@pytest.mark.parametrize("value", ["much", "", "-1", "nan"])
def test_a_value_that_is_no_amount_is_said_and_the_default_holds(monkeypatch, caplog, value):
    monkeypatch.setenv("FRAMEPACK_CHECKPOINT_DAYS", value)

    assert limits() == Limits()
    assert f"FRAMEPACK_CHECKPOINT_DAYS is {value!r}" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_settings_that_cannot_be_read_are_none(user, content):
    settings(user, content)

    assert limits() == Limits()


# What is kept


def test_a_second_run_is_told_what_the_first_one_finished():
    first, notes = kept(), []
    for section in SECTIONS[:2]:
        first.add(section)

    found = list(kept(notes.append).restored())

    assert [latents.max().item() for latents in found] == [0, 1]
    assert len(notes) == 1 and notes[0].startswith("resumed: 2 of 3 sections from 20")


def test_a_section_that_was_there_is_not_written_again():
    kept().add(SECTIONS[0])
    (path,) = files()
    os.utime(path, (0, 0))

    again = kept()
    list(again.restored())
    again.add(SECTIONS[0])

    assert path.stat().st_mtime == 0


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_finished_sections_are_held_in_the_timeline_only(resumed):
    """Besides it there is what one section needs: its noise, its latents, and the twenty frames that it sees."""
    plan = Plan.of(48.0)
    section = 4 * 16 * 9 * 4 * 4  # bytes
    if resumed:
        list(made(plan))

    with LiveBytes() as live:
        timeline = Timeline.of(1 + plan.generated, {0: LATENTS[:, :, :1]})
        for part, latents in made(plan, timeline):
            assert part.target
            del latents

    whole = timeline.latents.nbytes
    assert whole > 40 * section
    assert live.peak < whole + (4 if resumed else 6) * section


def made(plan: Plan, timeline: Timeline | None = None) -> Iterator[tuple[Section, torch.Tensor]]:
    """A plan's sections, sampled or restored as `sample` does it; each is kept."""
    timeline = timeline or Timeline.of(1 + plan.generated, {0: LATENTS[:, :, :1]})
    sections = plan.bind(timeline)
    keys = tuple(map(str, range(len(sections))))
    store = KeptSections(IDENTITY, lambda name: keys, lambda number: timeline.read(sections[number].target), lambda line: None)
    for section, latents in generate(sections, timeline, lambda noise, context: noise * 0.5, 0, store.restored()):
        store.add(section)
        yield section, latents
        del latents


# Disks that fail


class Disk:
    """Writes the first `works` sections, then fails until it is `mended`."""

    def __init__(self, monkeypatch, works: int) -> None:
        self.works, self.write = works, write_section
        monkeypatch.setattr("framepack_core.store.kept.write_section", self)

    def __call__(self, *section) -> Finished:
        self.works -= 1
        if self.works < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(*section)

    def mended(self) -> None:
        self.works = 10**6


def test_a_section_that_could_not_be_written_is_written_with_the_next_one(monkeypatch, caplog):
    disk, notes = Disk(monkeypatch, works=1), []
    first = kept(notes.append)
    for section in SECTIONS[:2]:
        first.add(section)
    disk.mended()
    first.add(SECTIONS[2])

    assert [latents.max().item() for latents in kept().restored()] == [0, 1, 2]
    assert len(notes) == 2 and "No space left on device; sampling continues" in notes[0] and "kept again" in notes[1]
    assert caplog.text.count("cannot be kept in") == 1


def test_a_disk_that_stays_full_is_said_once(user, caplog):
    notes = []
    store = kept(notes.append)
    (user / "__framepack").write_text("no folder")

    for section in SECTIONS:
        store.add(section)

    assert len(notes) == 1 and "finished sections cannot be kept" in notes[0] and "sampling continues" in notes[0]
    assert caplog.text.count("cannot be kept") == 1


def test_a_run_that_cannot_be_removed_is_a_warning(monkeypatch):
    kept().add(SECTIONS[0])
    monkeypatch.setattr("framepack_core.store.pruning.shutil.rmtree", lambda *args, **kwargs: None)
    monkeypatch.setenv("FRAMEPACK_CHECKPOINT_GB", "0")
    notes = []

    kept(notes.append, identity=identity_of(seed=2))

    assert len(notes) == 1 and "cannot be removed" in notes[0] and IDENTITY.name in notes[0]


# Why nothing is resumed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"known": {0: START + 1e-3}}, "the latents of the start or end image differ slightly"),
        ({"guider": {"conds": [{"cross_attn": TEXT * 1.01, "guidance": 10.0}]}}, "the text embeddings differ slightly"),
        ({"versions": {"framepack": "1", "comfyui": "0.31.0"}}, "ComfyUI was 0.30.0 and is 0.31.0"),
        ({"machine": {"device": "cpu", "attention": "attention_sage", "fast": ["fp16"]}},
         "the attention function was attention_pytorch and is attention_sage; --fast was none and is fp16"),
    ],
    ids=["start image", "text", "version", "machine"],
)  # fmt: skip
def test_sections_of_nearly_the_same_run_are_named_with_the_reason_why_they_are_not_used(changes, reason):
    for section in SECTIONS[:2]:
        kept().add(section)
    notes = []

    assert list(kept(notes.append, identity_of(**changes)).restored()) == []

    assert len(notes) == 1 and notes[0].startswith("2 finished sections from 20")
    assert notes[0].endswith(f" cannot be used, because {reason}")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"origin": "b"},
        {"known": {0: START.flip(3)}},
        {"known": {0: START, 9: START}},
        {"image": TEXT},
        {"guider": {"conds": [{"cross_attn": TEXT, "guidance": 9.0}]}},
        {"versions": {"framepack": "1", "comfyui": "0.31.0"}, "seed": 2},
    ],
    ids=["seed", "graph", "other image", "one more image", "image embedding", "guidance", "seed and version"],
)
def test_a_run_that_the_user_has_changed_needs_no_explanation(changes):
    kept().add(SECTIONS[0])
    notes = []

    assert list(kept(notes.append, identity_of(**changes)).restored()) == []

    assert notes == []


def test_sections_of_another_plan_are_no_reason_for_an_explanation():
    kept().add(SECTIONS[0])
    files()[0].rename(files()[0].with_name("0001-another.safetensors"))
    notes = []

    list(kept(notes.append, identity_of(known={0: START + 1e-3})).restored())

    assert notes == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"name": "a", "parts": {}}', '{"name": "a", "parts": {"seed": {"a": 1}}}']
)
def test_a_damaged_description_costs_the_explanation_only(content):
    kept().add(SECTIONS[0])
    (folder() / IDENTITY.name / FILE).write_text(content)
    notes = []

    assert list(kept(notes.append, identity_of(known={0: START + 1e-3})).restored()) == []
    assert [latents.max().item() for latents in kept(notes.append).restored()] == [0]
    assert [note[:7] for note in notes] == ["resumed"]


def test_a_folder_that_cannot_be_listed_costs_the_explanation_only(monkeypatch):
    kept().add(SECTIONS[0])
    notes = []
    store = kept(notes.append, identity_of(known={0: START + 1e-3}))

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)

    assert list(store.restored()) == [] and notes == []


def test_a_description_that_cannot_be_written_costs_no_section(monkeypatch):
    def full(*names) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Identity, "write", full)
    notes = []

    kept(notes.append).add(SECTIONS[0])

    assert len(files()) == 1 and notes == []
