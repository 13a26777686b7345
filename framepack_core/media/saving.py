"""Saving a video under a number that is free: nothing is replaced, and what can fail early does."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from .files import Numbered, name_first_free, require_name, unfinished_file, unfinished_folder
from .marking import Mark
from .remedies import named_failure
from .sound import Sound
from .video import Encoding, Footage, write_video

SIGN_AGAIN = "make room on the disk for the video twice, and queue the graph again"
DEFLATE = 1032  # a PNG's compression makes one byte of no more than this many


def save_video(
    place: Numbered,
    footage: Footage,
    encoding: Encoding,
    audio: Sound | None = None,
    metadata: Mapping[str, object] | None = None,
    pngs: bool = False,
    mark: Mark | None = None,
) -> Path:
    """Write frames as they arrive and return the path of the video.

    `audio` is cut to the video's length. `metadata` is stored as JSON in tags of these names, and the tags of `mark` as they
    are; its signature is the last thing that is written. With `pngs`, every frame is also saved as a PNG in a folder of the
    same name beside it, starting with `frame_00001.png`. Until all is written, file and folder have hidden names; if it fails
    they are removed. Neither ever replaces anything: what has the number when they are complete keeps it, and they go on to
    the next one.

    Before the first frame is asked for, everything that can be known is checked, apart from the signer (`Mark.require`). Raises
    OSError, with the path and what to do, if the name cannot be used, the disk has too little space or cannot be written to;
    ValueError for what the encoder does not take, and for a signature that fails once the video is saved without it.
    """
    texts = tags(metadata or {}) | ({} if mark is None else mark.tags)
    suffix = encoding.chosen.suffix
    first = next(place.paths(suffix))
    with (
        named_failure(first),
        unfinished_file(place.folder) as file,
        unfinished_folder(place.folder) if pngs else nullcontext() as folder,
    ):
        require_name(first)
        require_space(place.folder, least_bytes(footage, texts, pngs))
        write_video(file, footage, encoding, audio, texts, folder)
        refusal = None if mark is None else refused_signature(mark, file, suffix, folder)
        path = named(place, file, suffix, folder)
    if refusal is not None:
        raise ValueError(f"{path} is saved with its tags, but without a signature ({refusal}); {SIGN_AGAIN}") from refusal
    return path


def refused_signature(mark: Mark, file: Path, suffix: str, folder: Path | None) -> Exception | None:
    """Sign the video and its pictures. What has been made is worth more than its signature, so an error is not raised yet."""
    pictures = [] if folder is None else sorted(folder.iterdir())
    try:
        mark.sign([*((picture, picture.suffix) for picture in pictures), (file, suffix)])
    except (ValueError, OSError) as error:
        return error
    return None


def named(place: Numbered, file: Path, suffix: str, folder: Path | None) -> Path:
    """The video's path, once it and its folder have their names."""
    if folder is None:
        return name_first_free([file], ([path] for path in place.paths(suffix)))[0]
    return name_first_free([folder, file], zip(place.paths(), place.paths(suffix), strict=True))[1]


def tags(metadata: Mapping[str, object]) -> dict[str, str]:
    """As JSON. What JSON does not know is written as Python prints it. Raises ValueError for what contains itself."""
    try:
        return {name: json.dumps(value, default=str, skipkeys=True) for name, value in metadata.items()}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the workflow cannot be stored ({error}); start ComfyUI with --disable-metadata") from error


def least_bytes(footage: Footage, texts: Mapping[str, str], pngs: bool) -> int:
    """What the files need in any case: their tags, and of each PNG the frame as well as it can possibly be compressed."""
    tagged = sum(len(name) + len(text) for name, text in texts.items())
    return tagged + pngs * footage.count * (tagged + footage.height * footage.width * 3 // DEFLATE)


def require_space(folder: Path, needed: int) -> None:
    """Raises OSError if the disk certainly has too little space."""
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free <= needed:  # some disks in a network say nothing of themselves
        raise OSError(errno.ENOSPC, f"at least {needed / 1e6:.3g} MB are needed, {usage.free / 1e6:.3g} MB are free")
