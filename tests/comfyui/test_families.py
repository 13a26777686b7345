"""What a loaded MODEL says of its family."""

from types import SimpleNamespace

import pytest

from framepack_core.comfyui import families
from framepack_core.comfyui.families import AUTO, family_of
from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.family import FRAMEPACK
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_path(str(checkpoint), {})


def test_a_framepack_model_is_of_the_framepack_family(model):
    own = family_of(model)

    assert own.family == FRAMEPACK
    assert (own.text_width(model.model), own.image_width(model.model)) == (64, 32)
    assert own.blocks(model.model).keys() == {"double_block", "single_block"}


def test_another_model_is_refused():
    with pytest.raises(ValueError, match=r"^model is SimpleNamespace, not FramePack; load a FramePack checkpoint"):
        family_of(SimpleNamespace(model=SimpleNamespace()))


def test_every_family_s_own_solver_exists():
    for own in families.MODEL_FAMILIES:
        assert vars(own.sampler(AUTO)) == vars(sampler_named(own.family.solver))


def test_0_steps_are_the_model_s_own_number(model):
    timeline = Timeline.empty(10, 1, 16, 8, 8)
    timeline.known.add(0)
    sections = Plan(1).bind(timeline)

    (found,) = family_of(model).sigmas(sections, timeline, 0, 0.0)

    assert found.equal(section_sigmas(sections, timeline, 25, 0.0)[0])
