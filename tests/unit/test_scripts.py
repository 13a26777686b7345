"""The scripts' own decisions: what must be installed, and which frames a sheet shows."""

import sys

import numpy
import pytest
from PIL import Image

from experiments.pictures.sheet import GAP, sheet
from scripts.support import environment
from scripts.support.environment import (
    Environment,
    SetupError,
    extra_requirements,
    fingerprint,
    is_ready,
    requirements,
    stamp_file,
)


@pytest.fixture
def installed(tmp_path) -> Environment:
    """A ComfyUI and a virtual environment, both empty."""
    made = Environment(tmp_path / "venv" / "bin" / "python", tmp_path / "ComfyUI", tmp_path)
    made.comfyui.mkdir()
    (made.comfyui / "main.py").touch()
    (made.comfyui / "requirements.txt").write_text("aiohttp\n# comment\n")
    (tmp_path / "venv").mkdir()
    return made


@pytest.mark.parametrize(("has_tests", "needs_tests", "ready"),
                         [(True, True, True), (True, False, True), (False, False, True), (False, True, False)])  # fmt: skip
def test_the_demo_runs_in_the_tests_environment_but_not_the_reverse(installed, has_tests, needs_tests, ready):
    stamp_file(installed).write_text(fingerprint(installed, has_tests))

    assert is_ready(installed, needs_tests) is ready


def test_without_a_stamp_or_a_comfyui_nothing_is_ready(installed):
    assert not is_ready(installed, tests=False)

    stamp_file(installed).write_text(fingerprint(installed, tests=False))
    (installed.comfyui / "main.py").unlink()
    assert not is_ready(installed, tests=False)


def test_the_demo_needs_no_test_tools(installed):
    names = {requirement.split("=")[0].split(">")[0] for requirement in requirements(installed, tests=False)}

    assert names == {"torch", "torchvision", "torchaudio", "aiohttp"}
    assert {"diffusers", "pytest"} <= {part.split("=")[0].split(">")[0] for part in requirements(installed, tests=True)}


def test_an_extra_that_is_built_from_others_asks_for_what_they_ask_for_once():
    extras = {"a": ["numpy>=2", "tqdm"], "b": ["pack[a]", "psutil"], "c": ["pack[a, b]", "other[a]", "numpy>=2"]}

    assert extra_requirements("a", "pack", extras) == ["numpy>=2", "tqdm"]
    assert extra_requirements("b", "pack", extras) == ["numpy>=2", "tqdm", "psutil"]
    assert extra_requirements("c", "pack", extras) == ["numpy>=2", "tqdm", "psutil", "other[a]"]
    with pytest.raises(KeyError, match="d"):
        extra_requirements("d", "pack", extras)


def test_the_test_tools_come_from_all_extras(installed):
    packages = requirements(installed, tests=True)

    assert not [package for package in packages if package.startswith("framepack")]
    names = {package.split("=")[0].split(">")[0] for package in packages}
    assert {"accelerate", "gguf", "matplotlib", "hypothesis", "basedpyright", "ruff"} <= names


@pytest.mark.parametrize(("demo_first", "rebuilt"), [(True, False), (False, True)])
def test_test_tools_are_added_to_the_demo_s_environment(installed, monkeypatch, demo_first, rebuilt):
    calls = []
    monkeypatch.setattr(environment, "require_disk", lambda folder: None)
    monkeypatch.setattr(environment, "create_venv", lambda made: calls.append("venv"))
    monkeypatch.setattr(environment, "install_packages", lambda made, tests: calls.append(("packages", tests)))
    if demo_first:
        stamp_file(installed).write_text(fingerprint(installed, tests=False))

    environment.create(installed, tests=True)

    assert calls == [*(["venv"] if rebuilt else []), ("packages", True)]
    assert is_ready(installed, tests=True)


def test_the_environment_that_a_command_runs_from_is_not_deleted(installed, monkeypatch):
    monkeypatch.setattr(environment, "require_disk", lambda folder: None)
    monkeypatch.setattr(environment, "run", lambda command, made, advice: None)
    venv = installed.cache / "venv"
    kept = venv / "pyvenv.cfg"
    kept.touch()

    monkeypatch.setattr(sys, "prefix", str(venv))
    with pytest.raises(SetupError, match="a python3 from outside"):
        environment.create(installed, tests=True)
    assert kept.is_file()

    monkeypatch.setattr(sys, "prefix", str(installed.cache))
    environment.create_venv(installed)
    assert not kept.exists()


def test_a_sheet_shows_frames_at_equal_distances_the_first_and_the_last_among_them():
    frames = [Image.new("RGB", (8, 6), (number, 0, 0)) for number in range(11)]

    picture = numpy.asarray(sheet(frames, columns=3, rows=2, scale=1))

    assert picture.shape == (2 * 6 + GAP, 3 * 8 + 2 * GAP, 3)
    assert picture[:: 6 + GAP, :: 8 + GAP, 0].tolist() == [[0, 2, 4], [6, 8, 10]]
