"""A model, its weights in both namings, and a folder for LoRAs."""

from pathlib import Path

import folder_paths
import pytest
from support.checkpoints import Weights

from framepack_core.comfyui.loading import checkpoints
from framepack_core.weights import names


@pytest.fixture(scope="module")
def official(oracle) -> Weights:
    return dict(oracle.state_dict())


@pytest.fixture(scope="module")
def native(official) -> Weights:
    return names.to_comfy(official.copy())


@pytest.fixture
def model(checkpoint):
    return checkpoints.load_path(str(checkpoint), {})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """ComfyUI's folder of LoRAs."""
    known = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path / "loras")], known))
    (tmp_path / "loras").mkdir()
    return tmp_path / "loras"
