"""Signals as a terminal's programs have them."""

import signal


def undo_ignored() -> None:
    """For a new process: tests that run in the background (`nohup`, `&`) ignore these, and their processes would, too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
