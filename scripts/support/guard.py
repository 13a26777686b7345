"""Ends a process and removes folders once the process that runs this is gone, in whatever way: `guard.py PID [FOLDER ...]`.

It reads from a pipe that only that process holds, and that the system closes even if the process is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

WAITS = (0.0, 0.1, 0.3, 1.0, 3.0)  # seconds: a process that is being killed may still hold files


def guard(pid: int, folders: Sequence[Path]) -> subprocess.Popen:
    """Start a guard, which neither Ctrl+C nor the end of a terminal reaches. Kill it if the process ends by itself."""
    return subprocess.Popen(
        [sys.executable, __file__, str(pid), *map(str, folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def main() -> None:
    pid, *folders = sys.argv[1:]
    sys.stdin.buffer.read()
    with suppress(OSError):  # it has ended already
        os.kill(int(pid), getattr(signal, "SIGKILL", signal.SIGTERM))
    for wait in WAITS:
        time.sleep(wait)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if not any(map(os.path.exists, folders)):
            break


if __name__ == "__main__":
    main()
