"""The paper and the files, without ComfyUI: `python3 -m pytest tests/unit` needs torch, av, Pillow and hypothesis alone."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=300, derandomize=True)
settings.load_profile("unit")
