"""What all tests share. Run them with `python3 scripts/test.py`, which prepares a real ComfyUI for them."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARKED_FOLDERS = ("server", "browser")

# Last, so that ComfyUI's own modules (nodes, server, utils) are found before this repository's folders.
sys.path.append(str(ROOT))

from scripts.environment import Environment, cache_directory  # noqa: E402
from scripts.server import Server  # noqa: E402
from scripts.stand_ins.models import stand_in_models  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in server/ and browser/ get the mark of that name."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The ComfyUI that scripts/test.py has prepared."""
    if "FRAMEPACK_COMFYUI" not in os.environ:
        pytest.fail("needs a ComfyUI: run python3 scripts/test.py")
    return Path(os.environ["FRAMEPACK_COMFYUI"])


@pytest.fixture(scope="session")
def environment(comfyui_path: Path) -> Environment:
    return Environment(Path(sys.executable), comfyui_path, cache_directory())


@pytest.fixture(scope="session")
def models_directory(environment: Environment) -> Path:
    """The stand-in models (scripts/stand_ins), as ComfyUI's models folder. Shared between runs: do not write to it."""
    return stand_in_models(environment)


@pytest.fixture(scope="session")
def server(environment: Environment, models_directory: Path, tmp_path_factory) -> Iterator[Server]:
    """One ComfyUI with this pack, for all server and browser tests."""
    base = tmp_path_factory.mktemp("comfyui")
    flags = ["--extra-model-paths-config", str(linked_models(base / "linked"))]
    with Server(environment, base, models_directory, flags=flags) as server:
        yield server


def linked_models(folder: Path) -> Path:
    """Empty files in the places that the example workflows link to, so that the front end misses none; their config."""
    for workflow in (ROOT / "example_workflows").glob("*.json"):
        for node in json.loads(workflow.read_text(encoding="utf-8"))["nodes"]:
            for model in node["properties"].get("models", []):
                (folder / model["directory"]).mkdir(parents=True, exist_ok=True)
                (folder / model["directory"] / model["name"]).touch()
    config = folder / "linked.yaml"  # JSON is YAML
    config.write_text(json.dumps({"linked": {place.name: str(place) for place in folder.iterdir()}}), encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def start_image(server: Server) -> str:
    """The name of an uploaded picture, for LoadImage."""
    return server.upload_image(ROOT / "scripts" / "stand_ins" / "start_image.png")
