"""The paper and the files, without ComfyUI: `python3 -m pytest tests/unit` only needs torch, av, Pillow and hypothesis."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=300, derandomize=True)
settings.load_profile("unit")
