"""The folder of stand-in models, written once by `write_models.py` inside the virtual environment."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from scripts.support.environment import Environment

FOLDER = Path(__file__).parent
TESTS = FOLDER.parents[1]
NODES = FOLDER / "framepack_stand_ins"  # a custom node pack that loads what no file can hold in so small a size


def stand_in_models(environment: Environment) -> Path:
    """A models directory for ComfyUI; a new one when the script that writes it has changed."""
    files = (FOLDER / "write_models.py", FOLDER / "prompt.py", TESTS / "support" / "helios.py")
    sources = b"".join(file.read_bytes() for file in files)
    models = environment.cache / f"models-{hashlib.sha256(sources).hexdigest()[:8]}"
    if not models.exists():
        print("Writing small random models ...", flush=True)
        environment.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=environment.cache) as unfinished:
            written = Path(unfinished) / "models"
            command = [environment.python, "-m", "support.stand_ins.write_models", environment.comfyui, written]
            subprocess.run([str(part) for part in command], cwd=TESTS, check=True)
            written.rename(models)
    return models
