"""Strengths scale and stacks add, and the models before stay as they are."""

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import given as with_given
from hypothesis import strategies as st
from support.loras import assert_merged, everything, loaded, patched, stored, video
from support.ours import relative_error

from framepack_core.comfyui.loading import checkpoints, loras
from framepack_core.weights import names


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@with_given(st.floats(-4, 4).map(lambda value: round(value, 2)), st.floats(-4, 4).map(lambda value: round(value, 2)))
def test_strengths_scale_and_stacks_add(official, model, folder, first, second):
    files = [everything(official, seed) for seed in (1, 2)]
    name, other = (stored(folder, file.tensors, f"{number}.safetensors") for number, file in enumerate(files))
    changes = zip((first, second), files, strict=True)
    merged = {key: weight.clone() for key, weight in official.items()}
    for strength, file in changes:
        for key, weight in file.merged.items():
            merged[key] += strength * (weight - official[key])

    found = loaded(loaded(model, name, first), other, second)

    assert_merged(patched(found), names.to_comfy(merged))


def test_the_opposite_strength_takes_a_lora_away(official, model, folder):
    name = stored(folder, everything(official, 1).tensors)
    before = video(model)

    changed, back = loaded(model, name, 0.7), loaded(loaded(model, name, 0.7), name, -0.7)

    assert relative_error(video(back), before) < 1e-4 < 1e-2 < relative_error(video(changed), before)


def test_strength_0_is_the_model_itself(official, model, folder):
    found, report = loras.load(model, stored(folder, everything(official, 1).tensors), 0.0)

    assert found is model
    assert report == "some.safetensors: the strength is 0, so the model stays as it is"


def test_another_strength_reads_no_checkpoint_and_leaves_the_models_before_it_as_they_are(official, model, folder, monkeypatch):
    name = stored(folder, everything(official, 1).tensors)
    before = video(model)
    monkeypatch.setattr(checkpoints, "read_checkpoint", lambda path: pytest.fail("the checkpoint was read again"))

    models = {strength: loaded(model, name, strength) for strength in (0.5, 1.0)}
    found = {strength: video(patcher) for strength, patcher in models.items()}

    assert all(patcher.is_clone(model) for patcher in models.values())
    assert relative_error(found[0.5], found[1.0]) > 1e-2
    assert torch.equal(video(models[0.5]), found[0.5]) and torch.equal(video(model), before)
