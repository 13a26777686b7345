"""On a card that is too small for the model, modulation layers are off it, and only the first step fetches them."""

from contextlib import contextmanager, nullcontext
from itertools import count
from unittest.mock import patch

import comfy.model_patcher
import comfy.sd
import comfy_aimdo.host_buffer
import comfy_aimdo.model_vbar
import pytest
import torch

from experiments.card.card import GB, FakeCard
from experiments.card.models import released_transformer, released_weights, weights_on
from experiments.card.steps import request, sampled, unshared, watched
from framepack_core.comfyui.model import modulation
from framepack_core.plan import Plan

pytestmark = pytest.mark.slow

FP8, BF16 = torch.float8_e4m3fn, torch.bfloat16
SMALL = 20e6  # bytes: a step's inputs, and its modulations
TWO_SECTIONS = Plan.of(2.4)


@pytest.mark.parametrize(("size", "modulations"), [(6, BF16), (8, FP8), (12, BF16)], ids=str)
def test_a_step_fetches_only_other_weights_that_have_no_room(size, modulations):
    with FakeCard(size * GB) as card:
        model = released_transformer(released_weights(FP8, modulations=modulations))
        calls = watched(card, model)

        sampled(request(model, TWO_SECTIONS, steps=2))

        fetched = weights_on("cpu", model, modulations=False)
        first, *later = calls.moved
        assert all(moved <= fetched + SMALL for moved in later)
        assert first >= fetched + weights_on("cpu", model, modulations=True) > fetched + 3 * GB
        assert model.loaded_size() == weights_on("cuda", model, True) + weights_on("cuda", model, False)
    assert not card.memory.refused
    assert not calls.waits


def test_with_bf16_modulations_an_fp8_file_fits_a_card_of_12_gib_but_for_them():
    """All 12 GiB being free. Otherwise every step would fetch as much as modulations take that have no room."""
    with FakeCard(12 * 2**30) as card:
        model = released_transformer(released_weights(FP8, modulations=BF16))
        calls = watched(card, model)
        sampled(request(model, TWO_SECTIONS))

        assert weights_on("cpu", model, modulations=False) == 0
        assert weights_on("cpu", model, modulations=True) > 6 * GB
        assert calls.moved[-1] < SMALL
    with unshared(), FakeCard(12 * 2**30) as card:
        model = released_transformer(released_weights(FP8, modulations=BF16))
        calls = watched(card, model)
        sampled(request(model, TWO_SECTIONS))

        assert calls.moved[-1] > 6 * GB


def test_what_needs_room_gets_that_of_modulations_first():
    with FakeCard(16 * GB):
        model = released_transformer(released_weights(FP8, modulations=BF16))
        sampled(request(model, Plan.of(1.2)))
        before = weights_on("cuda", model, modulations=True)
        assert before > 2 * GB

        model.partially_unload(model.offload_device, 1.5 * GB)

        assert weights_on("cpu", model, modulations=False) == 0
        assert before - weights_on("cuda", model, modulations=True) >= 1.5 * GB


@contextmanager
def sigmas_told_apart():
    """Values of fake tensors are all 0. So each number, which a schedule is made of, gets another name."""
    names, values = count(), modulation.values
    with patch.object(modulation, "values", lambda tensor: values(tensor) if tensor.ndim else b"%d" % next(names)):
        yield


@pytest.mark.parametrize("weight", [FP8, BF16])
def test_a_call_that_computes_a_whole_schedule_waits_for_nothing_and_takes_no_more_than_is_estimated(weight):
    with sigmas_told_apart(), FakeCard(6 * GB) as card:
        model = released_transformer(released_weights(weight))
        calls = watched(card, model)
        sampled(request(model, Plan.of(1.2), steps=3))

        without_room = weights_on("cpu", model, modulations=True)
        assert calls.moved[0] > calls.moved[1] + 2 * without_room - SMALL, "its own, then all others"
        assert not calls.waits
        assert all(live <= estimate for live, estimate in zip(calls.live, calls.estimates, strict=True))


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_a_call_of_the_transformer_waits_for_nothing_and_the_step_around_it_reads_one_number_more(cfg):
    def counted(steps: int, context) -> int:
        with context, FakeCard(3 * GB) as card:
            model = released_transformer(released_weights(blocks=4))
            calls = watched(card, model)
            sampled(request(model, TWO_SECTIONS, steps=steps, cfg=cfg))
            assert weights_on("cpu", model, modulations=True) > 0 and not calls.waits
        return card.counted.total()

    shared, alone = (counted(3, context()) - counted(2, context()) for context in (nullcontext, unshared))

    read, kept = 2, 1  # the sigma of the step more, in both sections; what is made of it, which leaves the card once
    assert shared - alone == read + kept


def test_a_card_with_room_for_all_of_the_model_keeps_all_of_it_and_waits_for_nothing():
    with FakeCard(60 * GB) as card:
        model = released_transformer(released_weights(blocks=2))
        calls = watched(card, model)

        sampled(request(model, TWO_SECTIONS, steps=2))

        assert weights_on("cpu", model, modulations=True) == 0
    assert not calls.waits


@pytest.mark.parametrize("modulations", [FP8, BF16])
def test_a_lora_on_modulation_layers_is_applied_where_they_are_fetched(modulations):
    with FakeCard(3.3 * GB) as card:
        model = released_transformer(released_weights(FP8, blocks=2, modulations=modulations))
        name = "double_blocks.1.txt_mod.lin"
        lora = {f"diffusion_model.{name}.lora_A.weight": torch.zeros(16, 3072)}
        lora |= {f"diffusion_model.{name}.lora_B.weight": torch.zeros(6 * 3072, 16)}
        model, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)

        sampled(request(model, TWO_SECTIONS, steps=2, cfg=2.0))

        assert model.model.diffusion_model.get_submodule(name).weight.device.type == "cpu"
        assert model.lowvram_patch_counter() == 1
    assert not card.memory.refused


class Pages:
    """Stands for the memory of dynamic VRAM: what is allocated last is the first to leave the card."""

    def __init__(self, *args) -> None:
        self.allocated: list[int] = []

    def alloc(self, size: int) -> object:
        self.allocated.append(size)
        return object()

    def prioritize(self) -> None:
        pass


def test_dynamic_vram_gives_modulations_the_last_place(monkeypatch):
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
    monkeypatch.setattr(comfy_aimdo.host_buffer, "HostBuffer", lambda *args: None)
    monkeypatch.setattr(comfy_aimdo.model_vbar, "ModelVBAR", Pages)
    with FakeCard(16 * GB):
        model = released_transformer(released_weights(FP8, blocks=2, modulations=BF16))

        model.load(model.load_device)

        assert isinstance(model, comfy.model_patcher.ModelPatcherDynamic)
        [pages] = model.model.dynamic_vbars.values()
        sizes = sorted(layer.lin.weight.nbytes for layer in model.model.diffusion_model.modulations)
        assert [size // 10**6 for size in pages.allocated[-len(sizes) :]] == [size // 10**6 for size in sizes]
