"""Where ComfyUI's output folder takes a result."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..media.files import Numbered
from ..media.remedies import named_failure


def output_place(prefix: str, width: int, height: int) -> tuple[Numbered, str]:
    """The place for a video of this size, as ComfyUI reads `filename_prefix`, and its folder within the output folder.

    The folder is made. Raises ValueError for a prefix that no file can have, and OSError if the folder cannot be made.
    """
    output = folder_paths.get_output_directory()
    if not folder_paths.is_within_directory(output, os.path.join(output, os.path.dirname(os.path.normpath(prefix)))):
        raise ValueError(f"filename_prefix {prefix!r} is no name within the output folder; choose one, such as video/FramePack")
    with named_failure(Path(output, prefix)):
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    return Numbered(Path(folder), name, counter), subfolder
