"""Makes `framepack_core` importable without its root on sys.path, where `nodes/` would shadow ComfyUI's `nodes.py`."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=300, derandomize=True)
settings.load_profile("unit")

if "framepack_core" not in sys.modules:
    folder = Path(__file__).parents[2] / "framepack_core"
    spec = importlib.util.spec_from_file_location(
        "framepack_core", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["framepack_core"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["framepack_core"])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors here are tiny: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
