"""The measures and studies of experiments/."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
