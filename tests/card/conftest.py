"""Tests on a fake card (see experiments/card): the released models, on cards of every size, in seconds."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures; the import loads ComfyUI
