"""What stands on ComfyUI's Python, in the test process."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
