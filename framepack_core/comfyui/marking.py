"""The mark of a video that ComfyUI saves, and what it is signed with: two files that the user may put into ComfyUI's folder."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import Input

from ..media.marking import Mark
from ..media.signing import Signer
from .version import pack_version

CERTIFICATES, KEY = "certificates.pem", "key.pem"
TAGS_ONLY = "away, and videos have tags only"


def chosen_mark(wanted: bool, before: Input.Video | None = None, after: Input.Video | None = None) -> Mark | None:
    """The mark of a video, which other footage may be joined to; None if it is not wanted.

    Raises ValueError, with the folder and what to do, if there is something to sign with that cannot be used.
    """
    if not wanted:
        return None
    mark = Mark(before is not None or after is not None, signer())
    try:
        mark.require()
    except ValueError as error:
        raise ValueError(f"{CERTIFICATES} and {KEY} in {folder()} cannot be used: {error}, or take both {TAGS_ONLY}") from error
    return mark


def signer() -> Signer | None:
    """Of the user's certificates and key; None if neither is there. Raises ValueError if only one is, or one cannot be read."""
    there = [name for name in (CERTIFICATES, KEY) if (folder() / name).exists()]
    if not there:
        return None
    if len(there) == 1:
        (missing,) = {CERTIFICATES, KEY}.difference(there)
        raise ValueError(f"{folder()} has {there[0]} but no {missing}; put it there, or take {there[0]} {TAGS_ONLY}")
    try:
        certificates, key = ((folder() / name).read_bytes() for name in (CERTIFICATES, KEY))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror}); let ComfyUI read it, or take both files "
                         f"{TAGS_ONLY}") from error  # fmt: skip
    return Signer(certificates, key, pack_version())


def folder() -> Path:
    """ComfyUI's place for the data of extensions, which its server gives to nobody."""
    return Path(folder_paths.get_system_user_directory("framepack")) / "c2pa"
