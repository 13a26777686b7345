"""Where ComfyUI's output folder takes a result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import folder_paths

from ..media.files import Numbered
from ..media.names import check_prefix, fill_in
from ..media.remedies import named_failure


def require_prefix(prefix: str, suffix: str) -> None:
    """Raises ValueError for a `filename_prefix` that no file of this suffix in the output folder can have."""
    check_prefix(prefix, Path(folder_paths.get_output_directory()), suffix)


def output_place(prefix: str, suffix: str, prompt: Mapping[str, Any], width: int, height: int) -> tuple[Numbered, str]:
    """The place for a video of this size, as ComfyUI reads `filename_prefix`, and its folder within the output folder.

    Dates and values of other nodes of the API prompt are filled in, and the folder is made. Raises ValueError for a prefix that
    no file can have, and OSError if the folder cannot be made.
    """
    output = folder_paths.get_output_directory()
    prefix = fill_in(prefix, prompt, datetime.now())
    require_prefix(prefix, suffix)
    with named_failure(Path(output, prefix)):
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    return Numbered(Path(folder), name, counter), subfolder
