"""The doctor inside ComfyUI: its checks, a section with random weights, and the command with its report."""

import getpass
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from framepack_core.comfyui import private
from scripts import doctor
from scripts.support import trial
from scripts.support.doctor import comfyui as checks
from scripts.support.doctor import running
from scripts.support.environment import ROOT
from scripts.support.quantising.sizes import released_shapes, released_sizes
from scripts.support.trial import RELEASED, SMALL, Cost

COST = Cost((1.0, 0.5, 0.5), None, None)


# Checks


def test_a_missing_symbol_is_a_fault_only_if_models_or_sampling_need_it():
    essential = next(name for name, symbol in private.SYMBOLS.items() if private.MODELS in symbol.serves)
    other = next(
        name for name, symbol in private.SYMBOLS.items() if not any(part in symbol.serves for part in checks.ESSENTIAL)
    )

    def require(name: str) -> None:
        if name in (essential, other):
            raise private.Missing(f"{name} is gone")

    found = {finding.value: finding.status for finding in checks.symbols(require)}

    assert found == {f"{essential} is gone": "fault", f"{other} is gone": "warning"}


def test_this_comfyui_has_every_symbol():
    (found,) = checks.symbols()

    assert found.status == "ok"


def test_only_flags_that_matter_are_told_and_harmful_ones_are_warned_of():
    told, *warned = checks.flags(["--lowvram", "--fp16-unet", "--port", "8199", "--output-directory", "secret"])

    assert told.value == "--fp16-unet, --lowvram"
    assert [finding.value for finding in warned] == ["--fp16-unet"]
    assert "leave out --fp16-unet" in warned[0].remedy


@pytest.mark.parametrize(("text", "status"), [('"0.30.0"', "ok"), ('"0.100.1"', "ok"), ('"0.29.9"', "fault"), ("?", "warning")])
def test_a_comfyui_that_is_too_old_is_a_fault(tmp_path, text, status):
    (tmp_path / "comfyui_version.py").write_text(f"__version__ = {text}\n")

    assert checks.version(tmp_path).status == status


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ModuleNotFoundError("No module named 'av'"), "install ComfyUI's requirements"),
        (SystemExit(2), "a flag that was passed"),
        (RuntimeError("driver"), "the first error in its log"),
    ],
)
def test_a_comfyui_that_does_not_start_is_a_fault_with_its_error(tmp_path, error, remedy):
    found = checks.place(tmp_path, error)

    assert found.status == "fault"
    assert type(error).__name__ in found.value
    assert remedy in found.remedy


def test_the_pack_is_to_be_in_custom_nodes_once(tmp_path):
    nodes, pack = tmp_path / "custom_nodes", tmp_path / "custom_nodes" / "framepack"
    nodes.mkdir()
    assert "is not in custom_nodes" in checks.installed([nodes], pack).value

    (pack / "framepack_core").mkdir(parents=True)
    (nodes / "framepack_old.disabled" / "framepack_core").mkdir(parents=True)
    assert checks.installed([nodes], pack).status == "ok"
    assert "another copy" in checks.installed([nodes], tmp_path).value

    (nodes / "framepack_old" / "framepack_core").mkdir(parents=True)
    assert "2 times" in checks.installed([nodes], pack).value


# A section with random weights


def test_the_released_size_has_the_released_shapes_and_bytes():
    assert trial.shapes(RELEASED) == released_shapes()
    assert trial.nbytes(RELEASED, "bf16") == released_sizes()["bf16"]
    assert trial.nbytes(RELEASED, "fp8") == pytest.approx(16.3e9, rel=0.005)  # the published file's


@pytest.mark.parametrize("format", ["bf16", "fp8"])
def test_random_weights_are_in_memory_once_each(format):
    weights = list(trial.transformer(SMALL, format).model.diffusion_model.parameters())

    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)
    assert [weight.untyped_storage().nbytes() for weight in weights] == [weight.nbytes for weight in weights]
    assert sum(weight.numel() for weight in weights) == sum(map(math.prod, trial.shapes(SMALL).values()))


def test_weights_that_are_views_of_one_tensor_get_memory_of_their_own():
    shared, other = torch.arange(8.0), torch.zeros(2)
    model = nn.ParameterList([shared[:4], shared[2:6].view(2, 2), other])
    expected = [weight.tolist() for weight in model.parameters()]

    trial.separate(model, [shared])

    storages = [weight.untyped_storage() for weight in model.parameters()]
    assert [storage.nbytes() for storage in storages] == [16, 16, 8]
    assert storages[2].data_ptr() == other.untyped_storage().data_ptr()
    assert [weight.tolist() for weight in model.parameters()] == expected


def test_a_section_and_its_decode_run_on_the_cpu():
    found = running.run(SMALL, "fp8", steps=2)

    assert [(finding.what, finding.status) for finding in found.findings] == [("sampling", "ok"), ("decoding", "ok")]
    assert found.sampling and len(found.sampling.seconds) == 3
    assert found.step and found.decode and min(found.step, found.decode) > 0


def test_with_too_little_ram_no_weight_is_made(monkeypatch):
    monkeypatch.setattr(trial, "transformer", lambda *_: pytest.fail("made weights"))
    monkeypatch.setattr(running, "SPARE_RAM", psutil.virtual_memory().total)

    found = running.run(SMALL, "bf16")

    assert found.step is found.decode is None
    assert "the weights need" in found.findings[0].value


@pytest.fixture
def no_models(monkeypatch):
    """Models that are never run."""
    monkeypatch.setattr(trial, "transformer", lambda *_: None)
    monkeypatch.setattr(trial, "video_vae", lambda: None)
    monkeypatch.setattr(trial, "sample_section", lambda *_: COST)
    monkeypatch.setattr(trial, "decode_section", lambda *_: COST)


def fails(error: Exception):
    def function(*_):
        raise error

    return function


@pytest.mark.parametrize(("where", "what"), [("sample_section", "sampling"), ("decode_section", "decoding")])
def test_running_out_of_memory_is_a_fault_that_says_how_to_need_less(no_models, monkeypatch, where, what):
    monkeypatch.setattr(trial, where, fails(torch.OutOfMemoryError("CUDA out of memory")))

    found = running.run(SMALL, "bf16")

    assert (found.findings[-1].what, found.findings[-1].status) == (what, "fault")
    assert "base_resolution" in found.findings[-1].remedy
    assert found.decode is None


def test_another_error_is_a_fault_with_its_first_line(no_models, monkeypatch):
    monkeypatch.setattr(trial, "sample_section", fails(RuntimeError("no kernel image\nlong explanation")))

    (found,) = running.run(SMALL, "bf16").findings

    assert (found.status, found.value) == ("fault", "failed: RuntimeError: no kernel image")


def test_values_that_are_not_finite_are_a_fault(no_models, monkeypatch):
    monkeypatch.setattr(trial, "sample_section", lambda *_: Cost((1.0, 1.0), None, None, finite=False))

    sampling, decoding = running.run(SMALL, "bf16").findings

    assert (sampling.status, decoding.status) == ("fault", "ok")


# The command


def test_flags_after_two_dashes_are_comfyui_s():
    options = doctor.arguments(["--quick", "--", "--lowvram", "--quick"])

    assert options.quick and not options.small
    assert options.flags == ["--lowvram", "--quick"]


def test_a_folder_without_comfyui_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no ComfyUI in .*--comfyui"):
        doctor.find_comfyui(tmp_path)


def test_a_python_without_torch_says_which_to_use(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "pythons", lambda comfyui: [])

    with pytest.raises(SystemExit, match="this Python has no torch"):
        doctor.run_elsewhere(tmp_path)


@pytest.fixture
def base(tmp_path) -> Path:
    """A base directory with the pack in its custom_nodes."""
    base = tmp_path / "of somebody"
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "framepack").symlink_to(ROOT, target_is_directory=True)
    (base / "models" / "diffusion_models").mkdir(parents=True)
    return base


def examine(comfyui: Path, base: Path, *options: str) -> tuple[int, str]:
    """The exit status and the report of the command in a process of its own."""
    report = base / "report.md"
    command = [sys.executable, "-P", ROOT / "scripts" / "doctor.py", "--comfyui", comfyui, "--output", report, *options]
    done = subprocess.run(
        [*map(str, command), "--", "--cpu", "--base-directory", str(base)], cwd=base, capture_output=True, text=True
    )
    assert report.is_file(), done.stdout + done.stderr
    return done.returncode, report.read_text(encoding="utf-8")


def checkpoint(path: Path, lost: int = 0) -> None:
    """A file that claims to be FramePack's transformer, less its last bytes."""
    header = json.dumps({"clean_x_embedder.proj.weight": {"dtype": "BF16", "shape": [500], "data_offsets": [0, 1000]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1000 - lost))


@pytest.mark.slow
def test_a_section_runs_through_the_command_and_its_report_names_nobody(comfyui_path, base):
    checkpoint(base / "models" / "diffusion_models" / "FramePackI2V.safetensors")

    status, report = examine(comfyui_path, base, "--small")

    assert status == 0, report
    for chapter in ("Computer", "ComfyUI", "The pack", "Card", "Disks", "Models", "A section with random weights"):
        assert f"## {chapter}\n" in report
    assert "| the pack | custom_nodes/framepack |  |  |" in report
    assert "| nodes | all " in report
    assert "| diffusion_models/FramePackI2V.safetensors | FramePack, ComfyUI's names, BF16" in report
    assert "| sampling | 32x32, bf16" in report
    assert "| decoding | 3 latent frames" in report
    assert "could not be looked at" not in report
    assert personal(report, base) == []


@pytest.mark.slow
def test_a_checkpoint_that_is_cut_off_makes_the_command_fail(comfyui_path, base):
    checkpoint(base / "models" / "diffusion_models" / "FramePackI2V.safetensors", lost=1)

    status, report = examine(comfyui_path, base, "--quick")

    assert status == 1
    assert "- **fault**: diffusion_models/FramePackI2V.safetensors: is cut off" in report
    assert "| sampling and decoding | not run, because of --quick |" in report
    assert personal(report, base) == []


def personal(report: str, base: Path) -> list[str]:
    """The parts of a report that say whose computer it is."""
    names = [name for name in (getpass.getuser(), socket.gethostname()) if name not in ("root", "localhost")]
    return [part for part in (str(base), str(base.parent), base.name, str(ROOT), os.sep + "tmp", *names) if part in report]
