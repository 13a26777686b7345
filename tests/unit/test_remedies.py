"""An error says what fits it: a name that is too long is no matter of disk space."""

import errno
import os
from pathlib import Path

import pytest

from framepack_core.media.remedies import named_failure, remedy


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, "free disk space"),
        (errno.EDQUOT, "your quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ENOENT, "make it"),
        (errno.ENOTDIR, "a file has the name of that folder"),
        (errno.EINVAL, "without < >"),
        (errno.EFBIG, "may not be that large"),
        (errno.ESTALE, "network"),
        (errno.ENODEV, "check that the disk is connected"),
        (None, "check that the disk is connected"),
    ],
)
def test_each_error_has_its_remedy(code, expected):
    error = OSError("unknown") if code is None else OSError(code, os.strerror(code))

    with pytest.raises(OSError) as named, named_failure(Path("video.mp4")):
        raise error

    assert str(named.value).startswith(f"video.mp4 was not written ({error.strerror or error}); ")
    assert expected in str(named.value)


@pytest.mark.parametrize(
    ("code", "as_python_has_it", "expected"),
    [
        (32, errno.EACCES, "another program has it open"),
        (112, errno.ENOSPC, "free disk space"),
        (123, errno.EINVAL, "without < >"),
        (206, errno.ENOENT, "shorter name"),
        (19, errno.EACCES, "read-only"),
        (5, errno.EACCES, "permissions"),
        (1295, errno.EINVAL, "quota"),
    ],
)
def test_so_has_windows_with_codes_of_its_own(code, as_python_has_it, expected):
    error = OSError(as_python_has_it, "whatever Windows says")
    error.winerror = code

    assert expected in remedy(error)
