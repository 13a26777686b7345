"""What other nodes put on the model or into the conditioning: it works, is refused, or is named."""

import comfy_extras.nodes_context_windows as context_windows
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_differential_diffusion as differential
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_downscale as downscale
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_rope as rope
import comfy_extras.nodes_tomesd as tomesd
import comfy_extras.nodes_video_model as video
import pytest
import torch
from support import given
from support.ours import sample

from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.sampling.patches import (
    require_fitting_patches,
    require_unconditional,
    unused_image_embedding,
    without_effect,
)
from framepack_core.comfyui.sampling.request import overruled


@pytest.fixture
def model(checkpoint):
    return load_path(str(checkpoint), {})


def patched(node: type, model, **values):
    """The model after a node with its defaults."""
    kinds = node.INPUT_TYPES()
    inputs = {**kinds["required"], **kinds.get("optional", {})}
    defaults = {name: kind[1]["default"] for name, kind in inputs.items() if len(kind) > 1 and "default" in kind[1]}
    found = getattr(node(), node.FUNCTION)(model, **{**defaults, **values})
    return (found if isinstance(found, tuple) else found.args)[0]


def condition(**values) -> dict:
    return {"positive": [{"cross_attn": torch.zeros(1, 2, 64), "pooled_output": torch.zeros(1, 768), "uuid": 1, **values}]}


@pytest.mark.parametrize(
    ("node", "values", "said"),
    [
        (tomesd.TomePatchModel, {}, r"a patch for U-Nets \(TomePatchModel\), .* remove its node"),
        (hypertile.HyperTile, {}, r"a patch for U-Nets \(HyperTile\)"),
        (context_windows.ContextWindowsManualNode, {}, "context windows cut a section into pieces"),
        (
            advanced.ModelSamplingDiscrete,
            {"sampling": "eps"},
            "the model's sampling is ModelSamplingDiscrete, but FramePack is a",
        ),
        (advanced.ModelSamplingContinuousEDM, {"sampling": "v_prediction"}, "the model's sampling is ModelSamplingContinuous"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_patches_of_other_models_are_refused_before_the_first_step(model, node, values, said):
    with pytest.raises(ValueError, match=said):
        require_fitting_patches(patched(node, model, **values))


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (downscale.PatchModelAddDownscale, "patches for U-Nets (Kohya Deep Shrink and the like)"),
        (pag.PerturbedAttentionGuidance, None),
        (rope.ScaleROPE, "scaled rotary phases (rope options)"),
        (differential.DifferentialDiffusion, "Differential Diffusion, since there is no mask"),
        (advanced.ModelSamplingSD3, None),
        (custom.CFGOverride, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_patches_that_the_transformer_does_not_read_are_named(model, node, said):
    methods = {"downscale_method": "bicubic", "upscale_method": "bicubic"} if node is downscale.PatchModelAddDownscale else {}

    found = without_effect(patched(node, model, **methods), condition())

    assert found == ([] if said is None else [f"without effect on FramePack: {said}"])


def test_a_replaced_block_counts_if_the_model_has_it(model):
    model.set_model_patch_replace(lambda *_: None, "dit", "double_block", 1)
    assert not without_effect(model, condition())

    model.set_model_patch_replace(lambda *_: None, "dit", "single_block", 7)
    assert without_effect(model, condition()) == [
        "without effect on FramePack: the replaced single block 7, which the model lacks"
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"guidance": 3.0, "strength": 0.5, "start_percent": 0.1, "area": (2, 2, 0, 0)}, None),
        ({"control": object()}, "ControlNet"),
        ({"gligen": ("position", None, [])}, "GLIGEN"),
        ({"reference_latents": [0]}, "reference latents"),
        ({"concat_latent_image": 1, "concat_mask": 1}, "an image to be continued (concat_latent_image)"),
        ({"frame_rate": 25}, "frame_rate"),
        ({"frame_rate": None}, None),
    ],
)
def test_conditions_that_nothing_reads_are_named_once(model, values, said):
    assert without_effect(model, condition(**values)) == ([] if said is None else [f"without effect on FramePack: {said}"])


def test_what_a_sampler_s_own_inputs_take_the_place_of_is_named(model):
    positive = [[None, {"guidance": 3.5}], [None, {"guidance": 10.0}], [None, {}]]

    assert overruled(model, positive, None, 1.0, 10.0, "euler") == (
        "guidance 3.5 of the conditioning is without effect: this node's guidance is 10",
    )
    assert overruled(patched(advanced.ModelSamplingSD3, model), [], None, 1.0, 10.0, "euler") == (
        "the model's shift (ModelSamplingSD3 and the like) is without effect: set this node's shift",
    )


@pytest.mark.parametrize(
    ("cfg", "sampler", "patch", "named"),
    [
        (1.0, "unipc_bh1", None, True),
        (2.0, "unipc_bh1", None, False),
        (1.0, "euler_cfg_pp", None, False),
        (1.0, "euler", custom.CFGOverride, False),
    ],
)
def test_a_negative_prompt_that_nothing_uses_is_named(model, cfg, sampler, patch, named):
    model = patched(patch, model, cfg=3.0) if patch else model

    lines = overruled(model, [], [[None, {}]], cfg, 10.0, sampler)

    assert lines == (("negative is without effect at cfg 1",) if named else ())


def test_an_image_embedding_that_the_model_has_no_place_for_is_named(model):
    model.model.diffusion_model.image_projection = None

    assert unused_image_embedding({"last_hidden_state": None}, model) == [
        "clip_vision_output is without effect: this checkpoint does not look at images"
    ]
    assert unused_image_embedding(None, model) == []


@pytest.mark.parametrize("sampler", ["euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp", "gradient_estimation_cfg_pp"])
def test_a_sampler_that_uses_the_negative_prompt_needs_one(model, sampler):
    inputs = given.inputs()
    with pytest.raises(ValueError, match=r"uses a negative prompt \(cfg 1\), but there is none; connect negative"):
        sample(model, inputs, sections=1, sampler=sampler)

    assert sample(model, inputs, sections=1, sampler=sampler, cfg=1.5).isfinite().all()


def test_a_guider_with_three_predictions_may_leave_one_out():
    """As PerpNegGuider does with the negative prompt at a scale of 0."""
    given = {"cond_scale": 2.0, "model_options": {}, "conds": [[1], None, [2]], "conds_out": ["a", "b", "c"]}

    assert require_unconditional(given) == ["a", "b", "c"]


def test_a_patch_that_raises_cfg_needs_a_negative_prompt(model):
    with pytest.raises(ValueError, match=r"uses a negative prompt \(cfg 3\)"):
        sample(patched(custom.CFGOverride, model, cfg=3.0), given.inputs(), sections=1)


@pytest.mark.parametrize("negative", [None, []])
def test_an_empty_negative_prompt_is_none(negative):
    given = {"cond_scale": 2.0, "model_options": {}, "conds": [[1], negative], "conds_out": ["a", "b"]}

    with pytest.raises(ValueError, match=r"uses a negative prompt \(cfg 2\), but there is none"):
        require_unconditional(given)


@pytest.mark.parametrize("node", [video.VideoLinearCFGGuidance, video.VideoTriangleCFGGuidance, advanced.RescaleCFG])
def test_a_patch_that_looks_at_the_negative_prompt_changes_nothing_without_one(model, node):
    plain = sample(model, given.inputs(), sections=1)
    scale = {} if node is advanced.RescaleCFG else {"min_cfg": 3.0}

    found = sample(patched(node, model, **scale), given.inputs(), sections=1)

    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


def test_guidance_by_perturbed_attention_is_named_when_it_runs(model, caplog):
    sample(patched(pag.PerturbedAttentionGuidance, model), given.inputs(), sections=1, steps=1)

    assert "without effect on FramePack: replaced parts of U-Nets (attn1: PAG and the like)" in caplog.text


def test_a_section_that_is_not_finite_ends_the_run(model):
    """A LoRA with a NaN, for example."""
    model.add_patches({"diffusion_model.final_layer.linear.bias": (torch.full((64,), float("nan")),)})

    with pytest.raises(ValueError, match=r"section 1 has values that are not finite .* come from a LoRA or another patch"):
        sample(model, given.inputs(), sections=2)
