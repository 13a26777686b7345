"""Comparisons with a reference: diffusers, the official program's recorded results, ComfyUI's own blocks."""

from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
