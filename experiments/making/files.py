"""Training states that survive being killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from framepack_core.media.files import whole_file


def save_state(file: Path, step: int, **parts: Any) -> None:
    """Write every part's `state_dict` and the step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as unfinished:
        torch.save({"step": step} | {name: part.state_dict() for name, part in parts.items()}, unfinished)


def load_state(file: Path, **parts: Any) -> int:
    """Restore every part and return the step to continue with, 0 if there is no file."""
    if not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]
