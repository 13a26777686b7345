"""The pack's log."""

from __future__ import annotations

import logging
from functools import cache

log = logging.getLogger("framepack")


@cache
def log_once(warning: str) -> None:
    log.warning("FramePack: %s", warning)
