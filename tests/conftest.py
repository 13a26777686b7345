"""What all tests share. Run them with `python3 scripts/test.py`, which sets up a real ComfyUI for them."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
MARKED_FOLDERS = ("server", "browser")

# Last, so that ComfyUI's own modules (nodes, server, utils) are found before this repository's folders.
sys.path += [str(ROOT), str(TESTS)]

from support.example_video import write_example_video  # noqa: E402
from support.graph import show_all_previews  # noqa: E402
from support.stand_ins.models import NODES, stand_in_models  # noqa: E402
from support.stand_ins.prompt import TEMPLATE_LORA  # noqa: E402

from scripts.support.environment import Environment, cache_directory  # noqa: E402
from scripts.support.server import Server  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests in server/ and browser/ with the folder's name."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The ComfyUI that scripts/test.py has set up."""
    if "FRAMEPACK_COMFYUI" not in os.environ:
        pytest.fail("needs a ComfyUI: run python3 scripts/test.py")
    return Path(os.environ["FRAMEPACK_COMFYUI"])


@pytest.fixture(scope="session")
def environment(comfyui_path: Path) -> Environment:
    return Environment(Path(sys.executable), comfyui_path, cache_directory())


@pytest.fixture(scope="session")
def models_directory(environment: Environment) -> Path:
    """The stand-in models (tests/support/stand_ins), as ComfyUI's models folder. Shared between runs: do not write to it."""
    return stand_in_models(environment)


@pytest.fixture(scope="session")
def server(environment: Environment, models_directory: Path, tmp_path_factory) -> Iterator[Server]:
    """One ComfyUI with this pack, for all server and browser tests."""
    base = tmp_path_factory.mktemp("comfyui")
    write_example_video(base / "input")
    flags = ["--extra-model-paths-config", str(linked_models(base / "linked"))]
    with Server(environment, base, models_directory, flags=flags, packs=[NODES]) as server:
        yield server


@pytest.fixture(scope="session")
def unlimited_previews(server: Server) -> None:
    show_all_previews(server)


def linked_models(folder: Path) -> Path:
    """The config of empty files for the models that the example workflows link to, and for the user's LoRA, so that the front
    end misses none."""
    (folder / "loras").mkdir(parents=True)
    (folder / "loras" / TEMPLATE_LORA).touch()
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
    return server.upload_image(ROOT / "tests" / "support" / "stand_ins" / "start_image.png")
