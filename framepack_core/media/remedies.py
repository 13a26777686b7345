"""What to do about a file that could not be written, by the error that the system gave."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHARACTERS = 'choose a name that is shorter and without < > : " | ? *'
NETWORK = "the disk in the network does not answer; check the connection"
PERMISSIONS = "change the folder's permissions, or choose another folder (ComfyUI: --output-directory)"
QUOTA = "free some of your quota on that disk"
READ_ONLY = "that disk is read-only; choose another folder (ComfyUI: --output-directory)"
SHORTER = "choose a shorter name (FramePack Save Video: filename_prefix)"
SPACE = "free disk space"
UNKNOWN = "check that the disk is connected and has space"

REMEDIES = {
    errno.EACCES: PERMISSIONS,
    errno.EPERM: PERMISSIONS,
    errno.EROFS: READ_ONLY,
    errno.ENOSPC: SPACE,
    errno.EDQUOT: QUOTA,
    errno.ENAMETOOLONG: SHORTER,
    errno.ENOENT: "that folder is not there; make it, or check that its disk is connected",
    errno.ENOTDIR: "a file has the name of that folder; choose another folder",
    errno.EEXIST: "something else has that name; choose another",
    errno.EISDIR: "a folder has that name; choose another",
    errno.ELOOP: "links there lead in a circle; choose another folder",
    errno.EINVAL: CHARACTERS,
    errno.EILSEQ: "choose a name of other characters",
    errno.EFBIG: "files there may not be that large; choose a disk or a limit (ulimit -f) that allows it",
    errno.EMFILE: "too many files are open; close some programs, or raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open; close some programs",
    errno.EBUSY: "another program uses it; close that program",
    errno.ESTALE: NETWORK,
    errno.ENOTCONN: NETWORK,
    errno.ETIMEDOUT: NETWORK,
    errno.EHOSTDOWN: NETWORK,
    errno.EIO: "the disk failed; check it and its cable or connection",
}

# Windows' own codes, of which Python makes an errno that says less or something else.
WINDOWS = {
    19: READ_ONLY,
    32: "another program has it open; close that program",
    33: "another program has it open; close that program",
    39: SPACE,
    53: NETWORK,
    59: NETWORK,
    64: NETWORK,
    67: NETWORK,
    112: SPACE,
    123: CHARACTERS,
    206: SHORTER,
    223: "files there may not be that large; choose a disk that is not formatted with FAT32",
    1295: QUOTA,
}


def remedy(error: BaseException) -> str:
    """A clause that follows what was not written and why."""
    windows, code = (getattr(error, name, None) for name in ("winerror", "errno"))
    return WINDOWS.get(windows or 0) or REMEDIES.get(code or 0, UNKNOWN)


@contextmanager
def named_failure(path: Path) -> Iterator[None]:
    """Make an OSError say which file could not be written and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} was not written ({error.strerror or error}); {remedy(error)}") from error
