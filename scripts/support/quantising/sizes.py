"""The released transformer's size in every format, from its shapes alone: `python -m scripts.support.quantising.sizes`."""

from __future__ import annotations

import math

import torch

from framepack_core.comfyui.loading.quantise import FORMATS, Spec, format_of, nbytes, specs

HIDDEN, MLP, DOUBLE, SINGLE, HEAD, REFINER = 3072, 4 * 3072, 20, 40, 128, 2
TEXT, POOLED, TIME, IMAGE, CHANNELS = 4096, 768, 256, 1152, 16
BLOCK_BITS = {"Q8_0": 34 / 32, "Q6_K": 210 / 256, "Q5_K": 176 / 256, "Q4_K": 144 / 256, "Q4_0": 18 / 32}  # bytes per weight

Shapes = dict[str, tuple[int, ...]]


def released_sizes() -> dict[str, int]:
    """Bytes of the weights, by format; a GGUF has all the blocks' matrices in one type and the rest in float32."""
    return sizes_of(released_shapes())


def modulation_sizes() -> dict[str, int]:
    """Those of the weights that only a run's first section uses."""
    return sizes_of({key: shape for key, shape in released_shapes().items() if is_modulation(key)})


def is_modulation(name: str) -> bool:
    """Whether a weight is one of the blocks' modulation layers'."""
    return "_mod.lin." in name or ".modulation.lin." in name


def sizes_of(shapes: Shapes) -> dict[str, int]:
    parameters = sum(map(math.prod, shapes.values()))
    sizes = {"bf16": 2 * parameters} | {name: nbytes(file(shapes, name)) for name in FORMATS}
    blocks = sum(math.prod(shape) for key, shape in shapes.items() if "_blocks." in key and len(shape) == 2)
    return sizes | {f"GGUF {kind}": round(blocks * size + 4 * (parameters - blocks)) for kind, size in BLOCK_BITS.items()}


def file(shapes: Shapes, name: str) -> dict[str, Spec]:
    tensors: dict[str, Spec] = {}
    for key, shape in shapes.items():
        format = format_of(key, shape, name)
        tensors |= specs(key, shape, format) if format else {key: (torch.bfloat16, shape)}
    return tensors


def released_shapes() -> Shapes:
    """The shapes of the transformer with 13 billion parameters, in ComfyUI's names."""
    shapes: Shapes = {}

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def convolution(name: str, kernel: int) -> None:
        shapes[f"{name}.weight"] = (HIDDEN, CHANNELS, kernel, 2 * kernel, 2 * kernel)
        shapes[f"{name}.bias"] = (HIDDEN,)

    def attention(name: str, projection: str) -> None:
        linear(f"{name}.qkv", 3 * HIDDEN, HIDDEN)
        linear(f"{name}.{projection}", HIDDEN, HIDDEN)

    def mlp(name: str) -> None:
        linear(f"{name}.0", MLP, HIDDEN)
        linear(f"{name}.2", HIDDEN, MLP)

    def embedder(name: str, columns: int) -> None:
        linear(f"{name}.in_layer", HIDDEN, columns)
        linear(f"{name}.out_layer", HIDDEN, HIDDEN)

    def norms(name: str) -> None:
        shapes[f"{name}.query_norm.weight"] = shapes[f"{name}.key_norm.weight"] = (HEAD,)

    convolution("img_in.proj", 1)
    for name, kernel in (("proj", 1), ("proj_2x", 2), ("proj_4x", 4)):
        convolution(f"clean_x_embedder.{name}", kernel)
    linear("image_projection.up", 3 * HIDDEN, IMAGE)
    linear("image_projection.down", HIDDEN, 3 * HIDDEN)
    for name, columns in (("time_in", TIME), ("guidance_in", TIME), ("vector_in", POOLED), ("txt_in.t_embedder", TIME),
                          ("txt_in.c_embedder", TEXT)):  # fmt: skip
        embedder(name, columns)
    linear("txt_in.input_embedder", HIDDEN, TEXT)
    for i in range(REFINER):
        block = f"txt_in.individual_token_refiner.blocks.{i}"
        for name in ("norm1", "norm2"):
            shapes[f"{block}.{name}.weight"] = shapes[f"{block}.{name}.bias"] = (HIDDEN,)
        attention(f"{block}.self_attn", "proj")
        mlp(f"{block}.mlp")
        linear(f"{block}.adaLN_modulation.1", 2 * HIDDEN, HIDDEN)
    for i in range(DOUBLE):
        for stream in ("img", "txt"):
            linear(f"double_blocks.{i}.{stream}_mod.lin", 6 * HIDDEN, HIDDEN)
            attention(f"double_blocks.{i}.{stream}_attn", "proj")
            norms(f"double_blocks.{i}.{stream}_attn.norm")
            mlp(f"double_blocks.{i}.{stream}_mlp")
    for i in range(SINGLE):
        linear(f"single_blocks.{i}.linear1", 3 * HIDDEN + MLP, HIDDEN)
        linear(f"single_blocks.{i}.linear2", HIDDEN, HIDDEN + MLP)
        linear(f"single_blocks.{i}.modulation.lin", 3 * HIDDEN, HIDDEN)
        norms(f"single_blocks.{i}.norm")
    linear("final_layer.adaLN_modulation.1", 2 * HIDDEN, HIDDEN)
    linear("final_layer.linear", 4 * CHANNELS, HIDDEN)
    return shapes


if __name__ == "__main__":
    for name, size in released_sizes().items():
        print(f"| `{name}` | {size / 1e9:.2f} GB |")
