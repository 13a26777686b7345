"""Tests that use ComfyUI's Python modules, in the test process."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
