"""From a section to tokens and rotary phases, compared with references that build the full grid."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from framepack_core.filling import ContextGroup, Section
from framepack_core.layout import BASE_KERNEL, PRESETS, Kernel, resolve, token_count
from framepack_core.packing import context_tokens, gather, pad_to_multiple, patchify, pool_tail, rotary_phases
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

AXES, THETA = (16, 56, 56), 256.0
K1, K2, K4, K8, K16 = (Kernel(k, 2 * k, 2 * k) for k in (1, 2, 4, 8, 16))
KERNELS = sorted({kernel for name in PRESETS for kernel in resolve(name).kernels} | {K8, K16})
ORDER = {"framepack": "inverted", "endpoints": "endpoints"}  # the others run forward
TAILED = ["ta_f2k2f1k1_g9", "tc_f2k2f1k1_g9", "f1k1_ta_f4k4_g9", "g9_f1k1f2k2_ta", "tc_f16k16_g9"]
LAYOUTS = [*PRESETS, *TAILED]


def order_of(layout: str) -> str:
    return ORDER.get(layout, "inverted" if layout.startswith("g") else "forward")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def replicated(grid: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    """`B C T H W` padded as the official program does."""
    t, h, w = (-size % k for size, k in zip(grid.shape[2:], kernel, strict=True))
    return F.pad(grid, (0, w, 0, h, 0, t), mode="replicate")


# Tokens


class Weights:
    """Random float64 convolutions for the given kernels."""

    def __init__(self, kernels, channels: int = 3, width: int = 5) -> None:
        self.weight = {kernel: random(width, channels, *kernel, seed=sum(kernel)) for kernel in kernels}
        self.bias = {kernel: random(width, seed=sum(kernel) + 1) for kernel in kernels}
        self.convolutions = {kernel: partial(self.own, kernel=kernel) for kernel in kernels}

    def own(self, latents, kernel) -> torch.Tensor:
        return F.conv3d(latents, self.weight[kernel], self.bias[kernel], stride=tuple(kernel))

    def stretched(self, latents, kernel) -> torch.Tensor:
        """Weights from the base: each repeated over its share of the kernel, divided by the number of copies."""
        copies = [k // base for k, base in zip(kernel, BASE_KERNEL, strict=True)]
        weight = self.weight[BASE_KERNEL]
        for dim, count in enumerate(copies, start=2):
            weight = weight.repeat_interleave(count, dim)
        return F.conv3d(latents, weight / math.prod(copies), self.bias[BASE_KERNEL], stride=tuple(kernel))


def as_tokens(cells: torch.Tensor) -> torch.Tensor:
    """`B D T H W` to `B L D`, one cell after the other."""
    T, H, W = cells.shape[2:]
    rows = [cells[:, :, t, h, w] for t in range(T) for h in range(H) for w in range(W)]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("kernel", [K1, K2, K4], ids=str)
@pytest.mark.parametrize("size", [(4, 16, 24), (5, 18, 22), (1, 2, 2)], ids=str)
def test_a_kernel_with_weights_convolves_the_padded_latents(kernel, size):
    weights = Weights([K1, K2, K4])
    latents = random(2, 3, *size)

    tokens = patchify(latents, kernel, weights.convolutions)

    reference = weights.own(replicated(latents, kernel), kernel)
    torch.testing.assert_close(tokens, as_tokens(reference), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k not in (K1, K16)], ids=str)
@pytest.mark.parametrize("size", [(8, 32, 32), (9, 18, 38)], ids=str)
def test_a_kernel_without_weights_is_the_base_patchify_stretched_and_divided_by_its_copies(kernel, size):
    weights = Weights([K1])
    latents = random(1, 3, *size)

    tokens = patchify(latents, kernel, weights.convolutions)

    reference = weights.stretched(replicated(latents, kernel), kernel)
    torch.testing.assert_close(tokens, as_tokens(reference), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 64, 32), (3, 34, 66)], ids=str)
def test_k16_is_the_k8_convolution_at_half_the_size(size):
    weights = Weights([K1, K8])
    latents = random(1, 3, *size)

    tokens = patchify(latents, K16, weights.convolutions)

    halved = F.avg_pool3d(replicated(latents, K16), 2)
    reference = weights.own(halved, K8)
    torch.testing.assert_close(tokens, as_tokens(reference), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 64, 32), (3, 34, 66)], ids=str)
def test_k16_without_a_k8_is_the_base_patchify_stretched(size):
    weights = Weights([K1])
    latents = random(1, 3, *size)

    tokens = patchify(latents, K16, weights.convolutions)

    reference = weights.stretched(replicated(latents, K16), K16)
    torch.testing.assert_close(tokens, as_tokens(reference), rtol=1e-12, atol=1e-12)


def test_k16_weights_of_its_own_are_used():
    weights = Weights([K1, K8, K16])
    latents = random(1, 3, 16, 32, 64)

    tokens = patchify(latents, K16, weights.convolutions)

    reference = weights.own(latents, K16)
    torch.testing.assert_close(tokens, as_tokens(reference), rtol=1e-12, atol=1e-12)


def test_padding_repeats_the_last_frame_row_and_column():
    latents = random(1, 1, 3, 3, 2)

    padded = pad_to_multiple(latents, (2, 4, 4))

    assert padded.shape == (1, 1, 4, 4, 4)
    for t, h, w in ((t, h, w) for t in range(4) for h in range(4) for w in range(4)):
        assert padded[0, 0, t, h, w] == latents[0, 0, min(t, 2), min(h, 2), min(w, 1)]


def test_latents_that_divide_evenly_are_not_copied():
    latents = random(1, 1, 4, 8, 8)

    assert pad_to_multiple(latents, K4) is latents


def test_the_tokens_of_the_groups_follow_each_other():
    weights = Weights([K1, K2])
    coarse, fine = random(1, 3, 2, 8, 8, seed=1), random(1, 3, 1, 8, 8, seed=2)

    tokens = context_tokens([coarse, fine], [K2, K1], weights.convolutions)

    assert tokens.shape == (1, 4 + 16, 5)
    assert torch.equal(tokens[:, :4], patchify(coarse, K2, weights.convolutions))
    assert torch.equal(tokens[:, 4:], patchify(fine, K1, weights.convolutions))


# Gathering


def filled(frames: int, size=(34, 70), known=None) -> Timeline:
    timeline = Timeline.empty(frames, 1, 2, *size)
    known = range(frames) if known is None else known
    timeline.write(list(known), random(1, 2, len(known), *size))
    return timeline


def test_a_context_holds_the_frames_of_each_group_and_zeros_where_there_are_none():
    timeline = filled(19, known=range(10))
    section = Plan.of(2.4, "forward").fill(19)[1]

    k4, k2, start, x1 = gather(section, timeline).latents

    assert torch.equal(k4[:, :, :9], torch.zeros(1, 2, 9, 34, 70))
    assert torch.equal(k4[:, :, 9:], timeline.latents[:, :, 0:7])
    assert torch.equal(k2, timeline.latents[:, :, 7:9])
    assert torch.equal(start, timeline.latents[:, :, :1])
    assert torch.equal(x1, timeline.latents[:, :, 9:10])


def test_a_context_does_not_change_with_the_timeline():
    timeline = filled(19, known=range(10))
    context = gather(Plan.of(2.4, "forward").fill(19)[1], timeline)
    before = [latents.clone() for latents in context.latents]

    timeline.write(range(19), torch.zeros(1, 2, 19, 34, 70))

    assert all(torch.equal(a, b) for a, b in zip(before, context.latents, strict=True))


def test_a_tail_pooled_by_frame_averages_32x32_latent_pixels_of_each_frame():
    timeline = filled(20)
    section = Plan.of(1.2, "forward", layout="ta_f2k1_g9").fill(20, range(11))[0]

    tail, _ = gather(section, timeline).latents

    padded = replicated(timeline.latents[:, :, :9], (1, 32, 32))
    assert tail.shape == (1, 2, 9, 2, 3)
    for row, column in ((0, 0), (0, 2), (1, 0), (1, 2)):
        block = padded[..., row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32]
        torch.testing.assert_close(tail[..., row, column], block.mean(dim=(-2, -1)), rtol=0, atol=1e-4)


def test_a_tail_pooled_globally_is_the_mean_of_all_its_frames():
    timeline = filled(20)
    section = Plan.of(1.2, "forward", layout="tc_f2k1_g9").fill(20, range(11))[0]

    tail, _ = gather(section, timeline).latents

    torch.testing.assert_close(tail[0, :, 0, 0, 0], timeline.latents[0, :, :9].mean(dim=(1, 2, 3)))
    assert tail.shape == (1, 2, 1, 1, 1)


def test_latents_that_are_no_tail_are_not_pooled():
    latents = random(1, 2, 3, 4, 4)

    assert pool_tail(latents, "none") is latents


# Rotary phases


def pooled(grid: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    return F.avg_pool3d(replicated(grid, size), size)


def full_grid(indices, height: int, width: int, axes) -> torch.Tensor:
    """cos and then sin of every cell of the base patchify, float64 `1 sum(axes) T H W`."""
    t, h, w = torch.meshgrid(
        torch.tensor(indices, dtype=torch.float64),
        torch.arange(height // 2, dtype=torch.float64),
        torch.arange(width // 2, dtype=torch.float64),
        indexing="ij",
    )
    angles = [
        position / THETA ** (channel / size)
        for position, size in zip((t, h, w), axes, strict=True)
        for channel in range(0, size, 2)
    ]
    return torch.stack([*(a.cos() for a in angles), *(a.sin() for a in angles)])[None]


def reference_phases(group: ContextGroup, height: int, width: int, axes) -> torch.Tensor:
    """The full grid, pooled first as the tail and then as the kernel pools latents."""
    grid = full_grid(group.indices, height, width, axes)
    if group.pool == "global":
        grid = grid.mean(dim=(2, 3, 4), keepdim=True)
    if group.pool == "frame":
        # A tail frame's cells are 32x32 latent pixels, which the kernel then covers as if they were pixels.
        grid = pooled(grid, (1, 16, 16))
        return pooled(grid, tuple(group.kernel)).flatten(2)[0].T
    t, h, w = group.kernel
    return pooled(grid, (t, h // 2, w // 2)).flatten(2)[0].T


def last_section(layout: str, history: int = 40) -> Section:
    """A section after `history` known frames, or between the start and those frames."""
    order = order_of(layout)
    known = range(history) if order == "forward" else {0, *range(10, history + 10)}
    return Plan.of(1.2, order, layout=layout).fill(len(known) + 9, known)[0]


@pytest.mark.parametrize("layout", TAILED)
def test_the_sections_tried_here_have_their_tail(layout):
    assert any(group.pool != "none" for group in last_section(layout).context)


@pytest.mark.parametrize(("height", "width", "axes"), [(32, 64, (4, 6, 8)), (38, 22, AXES), (34, 70, (4, 6, 8))])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_phases_are_the_full_grid_padded_and_averaged(layout, height, width, axes):
    section = last_section(layout)

    cos, sin = rotary_phases(section, height, width, axes, THETA)

    target = ContextGroup(BASE_KERNEL, section.target, section.indices)
    reference = torch.cat([reference_phases(group, height, width, axes) for group in (*section.context, target)])
    torch.testing.assert_close(torch.cat([cos, sin], dim=1).double(), reference, rtol=0, atol=1e-6)


def test_phases_are_float32_and_half_a_head_wide():
    section = last_section("framepack")

    for phase in rotary_phases(section, 16, 16, AXES, THETA):
        assert phase.dtype == torch.float32
        assert phase.shape == (section.context_tokens(16, 16) + section.target_tokens(16, 16), sum(AXES) // 2)


def test_generated_tokens_turn_by_their_time_index_row_and_column():
    section = Section(0, target=(7, 8), indices=(20, 21), context=())

    cos, sin = rotary_phases(section, 4, 6, (2, 2, 2), theta=256.0)

    positions = [(t, h, w) for t in (20, 21) for h in (0, 1) for w in (0, 1, 2)]
    expected = torch.tensor(positions, dtype=torch.float64)
    torch.testing.assert_close(cos.double(), expected.cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin.double(), expected.sin(), rtol=0, atol=1e-6)


def test_generated_frames_of_another_size_have_whole_positions_of_their_own():
    """A coarse stage of Helios' pyramid: its cells are not at their places in the full grid, and its context is unchanged."""
    section = last_section("f1")
    tokens = section.context_tokens(16, 24)
    alone = Section(0, section.target, section.indices, ())

    phases = rotary_phases(section, 16, 24, AXES, THETA, target_size=(8, 12))

    for phase, full, coarse in zip(
        phases, rotary_phases(section, 16, 24, AXES, THETA), rotary_phases(alone, 8, 12, AXES, THETA), strict=True
    ):
        assert torch.equal(phase, torch.cat([full[:tokens], coarse]))


def test_a_coarse_token_has_the_average_phase_and_not_the_phase_of_the_average_position():
    group = ContextGroup(K4, tuple(range(16)), tuple(range(16)))
    section = Section(0, target=(16,), indices=(16,), context=(group,))
    tokens = group.tokens(16, 16)

    cos, sin = (phase[:tokens] for phase in rotary_phases(section, 16, 16, AXES, THETA))

    magnitude = torch.hypot(cos, sin)
    fastest = math.sin(2) / (4 * math.sin(0.5))  # four cells, one radian apart
    assert magnitude.min().item() == pytest.approx(fastest, abs=1e-6)
    assert round(fastest, 2) == 0.47
    assert magnitude.max() < 1
    torch.testing.assert_close(cos[0, 0].item(), sum(map(math.cos, range(4))) / 4, rtol=0, atol=1e-6)


def test_padding_counts_in_the_average():
    group = ContextGroup(K2, (0, 1), (0, 1))
    section = Section(0, target=(2,), indices=(2,), context=(group,))

    cos, _ = rotary_phases(section, 6, 6, (2, 2, 2), theta=256.0)

    # Three rows become two cells: rows 0 and 1, then row 2 twice.
    assert cos[0, 1].item() == pytest.approx((1 + math.cos(1)) / 2, abs=1e-6)
    assert cos[2, 1].item() == pytest.approx(math.cos(2), abs=1e-6)


def test_the_finest_context_is_not_averaged():
    section = last_section("vanilla")
    fine = section.context[-1]
    assert fine.kernel == K1

    cos, sin = rotary_phases(section, 16, 16, AXES, THETA)

    start = section.context_tokens(16, 16) - fine.tokens(16, 16)
    magnitudes = torch.hypot(cos[start:], sin[start:])
    torch.testing.assert_close(magnitudes, torch.ones_like(magnitudes), rtol=0, atol=1e-6)


# One phase per token


even = st.integers(1, 36).map(lambda half: 2 * half)


@settings(max_examples=60)
@given(st.sampled_from(LAYOUTS), even, even, st.integers(1, 45))
def test_there_are_as_many_phases_as_tokens_as_the_plan_counts(layout, height, width, history):
    section = last_section(layout, history)
    timeline = Timeline.empty(history + 10, 1, 1, height, width)
    weights = Weights([K1], channels=1, width=1)
    kernels = [group.kernel for group in section.context]

    cos, sin = rotary_phases(section, height, width, (2, 2, 2), THETA)
    context = gather(section, timeline)
    tokens = context_tokens([latents.double() for latents in context.latents], kernels, weights.convolutions)

    target = token_count(len(section.target), K1, height, width)
    assert tokens.shape[1] == section.context_tokens(height, width)
    assert len(cos) == len(sin) == tokens.shape[1] + target
