"""The transformer for training: its own kernels, text masks, and faster ways to the same numbers."""

import pytest
import torch
from torch.nn import functional as F

from framepack_core.layout import PRESETS, Kernel
from framepack_core.orders import ORDERS
from framepack_core.packing import context_tokens, gather, rotary_phases
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline
from framepack_core.training.transformer import PackedTransformer, gelu

TINY = {
    "num_attention_heads": 1,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "text_embed_dim": 8,
    "has_image_proj": True,
    "image_proj_dim": 12,
    "has_clean_x_embedder": True,
}
SIZE = 4


@pytest.fixture
def transformer() -> PackedTransformer:
    torch.manual_seed(0)
    return PackedTransformer(**TINY)


def given(layout: str = "framepack", batch: int = 2, order: str | None = None) -> dict:
    order = order or next((order.name for order in ORDERS.values() if order.layout == layout), "forward")
    plan = Plan.of(3.6, order, layout=layout)
    section = plan.fill(1 + plan.generated)[1]
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    video = Timeline(normal(batch, 16, 1 + plan.generated, SIZE, SIZE), set(range(1 + plan.generated)))
    return {
        "latents": normal(batch, 16, len(section.target), SIZE, SIZE),
        "timestep": torch.linspace(300, 700, batch),
        "text": normal(batch, 5, 8),
        "text_mask": None,
        "pooled": normal(batch, 768),
        "image": normal(batch, 2, 12),
        "context": gather(section, video).latents,
        "kernels": tuple(group.kernel for group in section.context),
        "rotary": rotary_phases(section, SIZE, SIZE, (16, 56, 56), 256.0),
        "guidance": torch.full((batch,), 10.0),
    }


def test_kernels_beyond_the_released_ones_get_convolutions_named_after_them(transformer):
    added = transformer.add_kernels([Kernel(1, 2, 2), Kernel(4, 8, 8), Kernel(1, 4, 2), Kernel(8, 16, 16)])

    assert added == ("proj_k1h4w2", "proj_k8")
    assert transformer.state_dict()["clean_x_embedder.proj_k1h4w2.weight"].shape == (128, 16, 1, 4, 2)


def test_a_dropped_kernel_is_built_from_the_base_again(transformer):
    inputs = given("geometric")
    as_base = context_tokens(inputs["context"], inputs["kernels"], transformer.convolutions)
    transformer.add_kernels([Kernel(1, 8, 8)])
    torch.nn.init.zeros_(transformer.convolutions[Kernel(1, 8, 8)].weight)

    transformer.drop_kernels(["k1h8w8", "k1h4w2"])

    torch.testing.assert_close(context_tokens(inputs["context"], inputs["kernels"], transformer.convolutions), as_base)
    assert not [key for key in transformer.state_dict() if "k1h8w8" in key]


def test_kernels_that_are_there_stay_as_they_are(transformer):
    transformer.add_kernels([Kernel(1, 4, 4)])
    with torch.no_grad():
        transformer.clean_x_embedder.proj_k1h4w4.weight.fill_(0.5)

    assert transformer.add_kernels([Kernel(1, 4, 4)]) == ()
    assert (transformer.clean_x_embedder.proj_k1h4w4.weight == 0.5).all()


@pytest.mark.parametrize("kernel", [Kernel(1, 4, 2), Kernel(1, 8, 8), Kernel(8, 16, 16)], ids=str)
def test_a_new_convolution_starts_as_what_packing_does_without_it(transformer, kernel):
    latents = torch.randn(1, 16, kernel.t + 1, 20, 24, generator=torch.Generator().manual_seed(0))
    expected = context_tokens([latents], [kernel], transformer.convolutions)

    transformer.add_kernels([kernel])

    torch.testing.assert_close(context_tokens([latents], [kernel], transformer.convolutions), expected, rtol=1e-4, atol=1e-5)


def test_masked_text_counts_as_if_it_were_not_there(transformer):
    inputs = given(batch=2)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = transformer(**inputs | {"text_mask": mask})

    for row, length in ((0, 5), (1, 3)):
        alone = {name: only(value, row) for name, value in inputs.items()}
        alone["text"] = alone["text"][:, :length]
        torch.testing.assert_close(found[row : row + 1], transformer(**alone), rtol=1e-4, atol=1e-5)


def only(value, row: int):
    """One row of a batch, with everything that the rows share."""
    if isinstance(value, torch.Tensor):
        return value[row : row + 1]
    if isinstance(value, tuple) and isinstance(value[0], torch.Tensor) and value[0].ndim == 5:
        return tuple(part[row : row + 1] for part in value)
    return value


def test_masked_text_is_not_read(transformer):
    inputs = given() | {"text_mask": torch.tensor([[True] * 3 + [False] * 2] * 2)}
    changed = inputs["text"].clone()
    changed[:, 3:] += 1

    torch.testing.assert_close(transformer(**inputs), transformer(**inputs | {"text": changed}), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_attention(transformer, masked):
    inputs = given() | ({"text_mask": torch.tensor([[True] * 5, [True] * 3 + [False] * 2])} if masked else {})
    expected = transformer(**inputs)

    transformer.plain_attention = True

    torch.testing.assert_close(transformer(**inputs), expected, rtol=1e-4, atol=1e-5)


def test_gelu_is_the_one_of_the_blocks():
    x = torch.linspace(-8, 8, 1001)

    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient(transformer):
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train()
        transformer.zero_grad()
        transformer(**given()).square().mean().backward()
        gradients.append([parameter.grad for parameter in transformer.parameters() if parameter.grad is not None])

    assert len(gradients[0]) == len(gradients[1]) > 50
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("name", ["timestep", "text", "pooled", "image", "guidance", "context", "rotary", "kernels"])
def test_every_input_counts(transformer, name):
    inputs = given("symmetric")
    transformer.add_kernels(inputs["kernels"])
    expected = transformer(**inputs)

    assert not torch.allclose(transformer(**inputs | {name: other(inputs[name])}), expected, atol=1e-6)


def other(value):
    if isinstance(value, torch.Tensor):
        return value * 1.5 + 1
    if isinstance(value[0], torch.Tensor):
        return tuple(part * 0.5 for part in value)
    return tuple(Kernel(1, 2, 2) if kernel == Kernel(1, 2, 2) else replace_w(kernel) for kernel in value)


def replace_w(kernel: Kernel) -> Kernel:
    return kernel._replace(h=kernel.w, w=kernel.h)


@pytest.mark.parametrize("layout", PRESETS)
def test_every_layout_trains_its_convolutions(transformer, layout):
    inputs = given(layout)
    transformer.add_kernels(inputs["kernels"])

    transformer(**inputs).square().mean().backward()

    convolutions = transformer.convolutions
    assert {kernel for kernel in convolutions if convolutions[kernel].weight.grad is not None} == set(inputs["kernels"])
