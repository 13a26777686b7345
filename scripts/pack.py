"""This pack in the running process, loaded as ComfyUI loads it: one package, next to ComfyUI's own modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load_pack(comfyui: Path, cpu: bool = True) -> None:
    """Make `framepack.framepack_core...` importable beside the `comfy` of this ComfyUI tree, and register the model."""
    sys.path.insert(0, str(comfyui))  # first: ComfyUI has a module `nodes`, this repository a folder
    from comfy.cli_args import args

    args.cpu = cpu
    spec = importlib.util.spec_from_file_location("framepack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["framepack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["framepack"])
    from framepack.framepack_core.comfyui.model import register

    register()
