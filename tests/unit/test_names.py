"""Weight names: diffusers' own model, renamed and compared with the table of names."""

import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel

from framepack_core.weights.names import is_diffusers, made_of, rename_module, strip_prefix, to_comfy

LAYERS, SINGLE_LAYERS, REFINERS = 2, 3, 2

# ComfyUI's module: the modules of diffusers whose rows it is made of. `{i}` is the block.
MODEL = {
    "img_in.proj": ["x_embedder.proj"],
    "time_in.in_layer": ["time_text_embed.timestep_embedder.linear_1"],
    "time_in.out_layer": ["time_text_embed.timestep_embedder.linear_2"],
    "guidance_in.in_layer": ["time_text_embed.guidance_embedder.linear_1"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
    "vector_in.out_layer": ["time_text_embed.text_embedder.linear_2"],
    "txt_in.input_embedder": ["context_embedder.proj_in"],
    "txt_in.t_embedder.in_layer": ["context_embedder.time_text_embed.timestep_embedder.linear_1"],
    "txt_in.t_embedder.out_layer": ["context_embedder.time_text_embed.timestep_embedder.linear_2"],
    "txt_in.c_embedder.in_layer": ["context_embedder.time_text_embed.text_embedder.linear_1"],
    "txt_in.c_embedder.out_layer": ["context_embedder.time_text_embed.text_embedder.linear_2"],
    "final_layer.linear": ["proj_out"],
    "final_layer.adaLN_modulation.1": ["norm_out.linear"],
    "clean_x_embedder.proj": ["clean_x_embedder.proj"],
    "clean_x_embedder.proj_2x": ["clean_x_embedder.proj_2x"],
    "clean_x_embedder.proj_4x": ["clean_x_embedder.proj_4x"],
    "image_projection.up": ["image_projection.up"],
    "image_projection.down": ["image_projection.down"],
}
REFINER = {
    "norm1": ["norm1"],
    "norm2": ["norm2"],
    "self_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "self_attn.proj": ["attn.to_out.0"],
    "mlp.0": ["ff.net.0.proj"],
    "mlp.2": ["ff.net.2"],
    "adaLN_modulation.1": ["norm_out.linear"],
}
DOUBLE = {
    "img_mod.lin": ["norm1.linear"],
    "txt_mod.lin": ["norm1_context.linear"],
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.norm.query_norm": ["attn.norm_q"],
    "img_attn.norm.key_norm": ["attn.norm_k"],
    "txt_attn.norm.query_norm": ["attn.norm_added_q"],
    "txt_attn.norm.key_norm": ["attn.norm_added_k"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.net.0.proj"],
    "img_mlp.2": ["ff.net.2"],
    "txt_mlp.0": ["ff_context.net.0.proj"],
    "txt_mlp.2": ["ff_context.net.2"],
}
SINGLE = {
    "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
    "linear2": ["proj_out"],
    "norm.query_norm": ["attn.norm_q"],
    "norm.key_norm": ["attn.norm_k"],
    "modulation.lin": ["norm.linear"],
}
BLOCKS = [
    (REFINER, REFINERS, "txt_in.individual_token_refiner.blocks", "context_embedder.token_refiner.refiner_blocks"),
    (DOUBLE, LAYERS, "double_blocks", "transformer_blocks"),
    (SINGLE, SINGLE_LAYERS, "single_blocks", "single_transformer_blocks"),
]
NAMES = MODEL | {
    f"{new}.{i}.{module}": [f"{old}.{i}.{part}" for part in parts]
    for names, count, new, old in BLOCKS
    for i in range(count)
    for module, parts in names.items()
}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A small model's state dict in diffusers' names, every number different."""
    model = HunyuanVideoFramepackTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=LAYERS,
        num_single_layers=SINGLE_LAYERS,
        num_refiner_layers=REFINERS,
        text_embed_dim=12,
        pooled_projection_dim=10,
        has_image_proj=True,
        image_proj_dim=6,
        has_clean_x_embedder=True,
    )
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in model.state_dict().items()}


def test_the_table_names_every_module_of_diffusers_once(weights):
    named = [part for parts in NAMES.values() for part in parts]

    assert sorted(named) == sorted({name.rpartition(".")[0] for name in weights})


def test_every_weight_of_the_model_goes_to_its_name_with_rows_in_order(weights):
    expected = {
        f"{module}.{leaf}": torch.cat([weights[f"{part}.{leaf}"] for part in parts])
        for module, parts in NAMES.items()
        for leaf in ("weight", "bias")
        if f"{parts[0]}.{leaf}" in weights
    }
    for leaf in ("weight", "bias"):  # diffusers scales and then shifts, ComfyUI shifts and then scales
        scale, shift = weights[f"norm_out.linear.{leaf}"].chunk(2)
        expected[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])

    renamed = to_comfy(dict(weights))

    assert renamed.keys() == expected.keys()
    assert all(torch.equal(renamed[name], tensor) for name, tensor in expected.items())


def test_only_the_last_modulation_swaps_its_halves(weights):
    renamed = to_comfy(dict(weights))

    refiner = "context_embedder.token_refiner.refiner_blocks.0.norm_out.linear.weight"
    assert torch.equal(renamed["txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight"], weights[refiner])


def test_the_dict_that_is_renamed_is_emptied(weights):
    given = dict(weights)

    to_comfy(given)

    assert given == {}


@pytest.mark.parametrize(
    "key",
    [
        "vision_in.proj.weight",
        "double_blocks.0.img_attn.qkv.weight",
        "transformer_blocks.0.attn.to_x.weight",
        "transformer_blocks.zero.attn.to_q.weight",
        "time_text_embed.timestep_embedder.linear_3.weight",
        "norm_out.weight",
    ],
)
def test_an_unknown_name_is_refused(weights, key):
    with pytest.raises(ValueError, match=f"^{key} is not a weight of FramePack's transformer"):
        to_comfy({**weights, key: torch.zeros(1)})


@pytest.mark.parametrize(
    ("missing", "module", "lacks"),
    [
        ("transformer_blocks.1.attn.to_q.", "double_blocks.1.img_attn.qkv", "q's bias, q's weight"),
        ("transformer_blocks.1.attn.to_q.bias", "double_blocks.1.img_attn.qkv", "q's bias"),
        ("transformer_blocks.0.attn.add_v_proj.", "double_blocks.0.txt_attn.qkv", "v's bias, v's weight"),
        ("single_transformer_blocks.2.attn.to_k.", "single_blocks.2.linear1", "k's bias, k's weight"),
        ("single_transformer_blocks.0.proj_mlp.weight", "single_blocks.0.linear1", "mlp's weight"),
    ],
)
def test_a_matrix_that_cannot_be_completed_is_refused_by_name(weights, missing, module, lacks):
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(missing)}

    with pytest.raises(ValueError, match=f"^{module} is made of q, k, v.* the checkpoint lacks {lacks};"):
        to_comfy(kept)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "transformer.", "model.model.", "model."])
def test_the_prefix_of_the_whole_transformer_is_stripped_and_what_is_beside_it_left_out(weights, prefix):
    stored = {f"{prefix}{name}": tensor for name, tensor in weights.items()} | {"vae.decoder.weight": torch.zeros(1)}

    stripped = strip_prefix(stored)

    assert stripped.keys() == weights.keys()
    assert all(stripped[name] is weights[name] for name in weights)


def test_comfyui_names_are_stripped_too(weights):
    renamed = to_comfy(dict(weights))
    stored = {f"model.diffusion_model.{name}": tensor for name, tensor in renamed.items()}

    assert strip_prefix(stored).keys() == renamed.keys()


def test_names_without_a_prefix_stay(weights):
    assert strip_prefix(weights) is weights


def test_names_of_diffusers_are_told_from_those_of_comfyui(weights):
    assert is_diffusers(weights)
    assert not is_diffusers(to_comfy(dict(weights)))


def test_sidecars_move_with_their_module():
    scale = torch.tensor(0.5)

    renamed = to_comfy({"proj_out.weight": torch.zeros(2, 2), "proj_out.weight_scale": scale})

    assert renamed.keys() == {"final_layer.linear.weight", "final_layer.linear.weight_scale"}
    assert renamed["final_layer.linear.weight_scale"] is scale


def test_plain_fp8_parts_are_joined_as_they_are():
    parts = {f"transformer_blocks.0.attn.to_{part}.weight": torch.randn(4, 4).to(torch.float8_e4m3fn) for part in "qkv"}
    expected = torch.cat([tensor.float() for tensor in parts.values()])

    joined = to_comfy(dict(parts))["double_blocks.0.img_attn.qkv.weight"]

    assert joined.dtype == torch.float8_e4m3fn
    assert torch.equal(joined.float(), expected)


def test_scaled_parts_are_joined_under_one_scale():
    weights, full = {}, []
    for part, scale in zip("qkv", (1.0, 0.01, 30.0), strict=True):
        weight = torch.randn(4, 4).to(torch.float8_e4m3fn)
        module = f"transformer_blocks.0.attn.to_{part}"
        weights |= {f"{module}.weight": weight, f"{module}.weight_scale": torch.tensor(scale)}
        full.append(weight.float() * scale)

    joined = to_comfy(weights)

    weight, scale = (joined[f"double_blocks.0.img_attn.qkv.{leaf}"] for leaf in ("weight", "weight_scale"))
    error = (weight.float() * scale - torch.cat(full)).abs()
    assert scale.numel() == 1
    assert (error <= torch.cat(full).abs() / 16 + scale * 2**-10).all()


def test_parts_of_another_quantised_format_are_refused_with_the_remedy():
    weights = {
        f"transformer_blocks.0.attn.to_{part}.{leaf}": torch.zeros(4, 4) for part in "qkv" for leaf in ("weight", "comfy_quant")
    }

    with pytest.raises(ValueError, match=r"cannot be joined; use a file with ComfyUI's names"):
        to_comfy(weights)


def test_every_module_is_made_of_the_modules_of_the_table_in_their_order():
    for module, parts in NAMES.items():
        assert made_of(module) == parts
        assert [rename_module(part).name for part in parts] == [module] * len(parts)
        assert [rename_module(part).part for part in parts] == (list(range(len(parts))) if len(parts) > 1 else [None])
    assert made_of("double_blocks.0.img_attn.kqv") == made_of("vision_in.proj") == made_of("double_blocks.x.img_attn.qkv") == []


def test_the_rows_of_a_part_are_those_that_it_has_in_the_joined_matrix(weights):
    for parts in NAMES.values():
        joined = torch.cat([weights[f"{part}.weight"] for part in parts])
        for part in parts:
            first, rows = rename_module(part).rows(len(joined), joined[0].numel())
            assert torch.equal(joined[first : first + rows], weights[f"{part}.weight"])


def test_only_the_last_modulation_is_said_to_be_swapped():
    assert [part for parts in NAMES.values() for part in parts if rename_module(part).swapped] == ["norm_out.linear"]


def test_a_name_says_where_a_module_goes_and_which_part_it_becomes():
    module = rename_module("single_transformer_blocks.12.proj_mlp")

    assert (module.name, module.part) == ("single_blocks.12.linear1", 3)
    assert rename_module("vae.decoder.conv_in") is None
