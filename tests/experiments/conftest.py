"""Tests of the measures and studies in experiments/."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
from support.threads import one_thread  # noqa: F401 - autouse
