"""The paper and the files, without ComfyUI: `python3 -m pytest tests/unit` only needs torch, av, Pillow, c2pa-python
and hypothesis."""

from hypothesis import settings
from support.threads import one_thread  # noqa: F401 - autouse

settings.register_profile("unit", deadline=None, max_examples=300, derandomize=True)
settings.load_profile("unit")
