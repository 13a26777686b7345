"""Tests of the measures and studies in experiments/."""

import pytest
from support.in_process import checkpoint, oracle  # noqa: F401 - fixtures
from support.threads import one_thread  # noqa: F401 - autouse

from experiments.study.run import quiet_comfyui
from experiments.study.studio import Studio


@pytest.fixture(scope="module")
def studio() -> Studio:
    """The demo's models."""
    quiet_comfyui()
    return Studio()
