"""Tests of the measures and studies in experiments/."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
