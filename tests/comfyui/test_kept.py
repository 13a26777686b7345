"""How much is kept: the user's settings count, and failures are reported and do no other harm."""

import json
import os
from pathlib import Path

import folder_paths
import pytest
import torch

from framepack_core.comfyui.sampling.kept import KeptSections, folder, limits
from framepack_core.plan import Plan
from framepack_core.store.pruning import Limits

IDENTITY = "a" * 64
SECTIONS = Plan.of(3.6).fill(28)
KEYS = ("one", "two", "three")
LATENTS = torch.ones(1, 16, 9, 4, 4)


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


def test_a_second_run_is_told_what_the_first_one_finished():
    first, notes = KeptSections(IDENTITY, KEYS, lambda line: None), []
    for section in SECTIONS[:2]:
        first.add(section, LATENTS * section.number)

    second = KeptSections(IDENTITY, KEYS, notes.append)

    assert [latents.max().item() for latents in second.latents] == [0, 1]
    assert len(notes) == 1 and notes[0].startswith("resumed: 2 of 3 sections from 20")


def test_a_section_that_was_there_is_not_written_again():
    KeptSections(IDENTITY, KEYS, lambda line: None).add(SECTIONS[0], LATENTS)
    (path,) = (folder() / IDENTITY).iterdir()
    os.utime(path, (0, 0))

    KeptSections(IDENTITY, KEYS, lambda line: None).add(SECTIONS[0], LATENTS)

    assert path.stat().st_mtime == 0


def test_after_a_failed_write_nothing_more_is_tried_and_it_is_said_once(user, caplog):
    notes = []
    checkpoints = KeptSections(IDENTITY, KEYS, notes.append)
    (user / "__framepack").write_text("no folder")

    for section in SECTIONS:
        checkpoints.add(section, LATENTS)

    assert len(notes) == 1 and "finished sections are no longer kept" in notes[0] and "sampling continues" in notes[0]
    assert caplog.text.count("no longer kept") == 1


def test_a_run_that_cannot_be_removed_is_a_warning(monkeypatch):
    KeptSections(IDENTITY, KEYS, lambda line: None).add(SECTIONS[0], LATENTS)
    monkeypatch.setattr("framepack_core.store.pruning.shutil.rmtree", lambda *args, **kwargs: None)
    monkeypatch.setenv("FRAMEPACK_CHECKPOINT_GB", "0")
    notes = []

    KeptSections("b" * 64, KEYS, notes.append)

    assert len(notes) == 1 and "cannot be removed" in notes[0] and IDENTITY in notes[0]
