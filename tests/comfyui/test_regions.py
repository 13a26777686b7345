"""Areas and masks: a condition for a part of the picture sees the phases of that part."""

import pytest
import torch
from comfy.samplers import get_area_and_mult, resolve_areas_and_cond_masks_multidim
from support import given
from support.ours import sample

from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.model.conditions import Packed, PackedContext
from framepack_core.comfyui.sampling.regions import for_video, require_prompt_everywhere, require_region
from framepack_core.packing import gather
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

FRAMES, HEIGHT, WIDTH = 9, 12, 20
AXES, THETA = (16, 56, 56), 256.0


@pytest.fixture
def packed() -> PackedContext:
    plan = Plan.of(1.2)
    timeline = Timeline.of(1 + plan.generated, {0: torch.zeros(1, 16, 1, HEIGHT, WIDTH)})
    (section,) = plan.bind(timeline)
    return PackedContext(gather(section, timeline), HEIGHT, WIDTH, AXES, THETA)


def test_the_phases_of_a_part_are_those_of_its_tokens_in_the_whole(packed):
    part = packed.part((FRAMES, 6, 8, 0, 4, 10))

    generated = packed.rotary[0, 0, packed.tokens :].unflatten(0, (FRAMES, HEIGHT // 2, WIDTH // 2))
    assert torch.equal(part.rotary[0, 0, : part.tokens], packed.rotary[0, 0, : packed.tokens])
    assert torch.equal(part.rotary[0, 0, part.tokens :], generated[:, 2:5, 5:9].flatten(0, 2))
    assert part.size == (FRAMES, 3, 4) and packed.size == (FRAMES, 6, 10)


def test_a_part_that_splits_tokens_is_refused(packed):
    with pytest.raises(ValueError, match="area is 8x5 latent pixels at 10, 4; FramePack needs even numbers"):
        packed.part((FRAMES, 5, 8, 0, 4, 10))


AREAS = {
    "pixels": (6, 8, 4, 10),
    "odd pixels": (5, 7, 5, 11),
    "fractions of a picture": ("percentage", 0.5, 0.4, 0.35, 0.5),
    "fractions of a video": ("percentage", 1.0, 0.5, 0.4, 0.0, 0.35, 0.5),
    "larger than the picture": (100, 100, 4, 10),
}


@pytest.mark.parametrize("area", AREAS.values(), ids=AREAS)
def test_comfyui_cuts_out_whole_tokens(packed, area):
    """As its sampler does: resolve the conditions, then cut the input and each condition."""
    cond = {"model_conds": {"packed": Packed(packed)}, "uuid": 1, "area": area}
    x = torch.arange(FRAMES * HEIGHT * WIDTH).view(1, 1, FRAMES, HEIGHT, WIDTH).float()
    conds = [for_video(cond, FRAMES, HEIGHT, WIDTH)]
    resolve_areas_and_cond_masks_multidim(conds, (FRAMES, HEIGHT, WIDTH), "cpu")

    found = get_area_and_mult(conds[0], x, torch.ones(1))

    T, H, W = found.input_x.shape[2:]
    assert T == FRAMES and not H % 2 and not W % 2
    assert found.conditioning["packed"].cond.size == (T, H // 2, W // 2)
    assert found.input_x.flatten()[0] == x[0, 0, 0, 4, 10]


def test_a_mask_weighs_every_frame_of_the_video(packed):
    mask = torch.zeros(1, 48, 80)
    mask[:, :, 40:] = 1
    conds = [for_video({"model_conds": {}, "uuid": 1, "mask": mask}, FRAMES, HEIGHT, WIDTH)]
    resolve_areas_and_cond_masks_multidim(conds, (FRAMES, HEIGHT, WIDTH), "cpu")

    found = get_area_and_mult(conds[0], torch.zeros(2, 16, FRAMES, HEIGHT, WIDTH), torch.ones(1))

    assert found.mult.shape == (2, 16, FRAMES, HEIGHT, WIDTH)
    assert found.mult[..., :9].max() == 0 and found.mult[..., 11:].min() == 1


@pytest.mark.parametrize(
    ("cond", "said"),
    [
        ({"area": (6, 8, 4, 24)}, "positive has an area that begins at 192, 32, outside the picture of 160x96 pixels"),
        ({"area": (6, 8, 12, 0)}, "positive has an area that begins at 0, 96, outside"),
        ({"area": ("percentage", 0.5, 1.0, 1.0, 0.0, 0.0, 0.0)}, "positive has an area in time (temporal 0.5, z 0)"),
        ({"area": ("percentage", 1.0, 1.0, 1.0, 0.2, 0.0, 0.0)}, "positive has an area in time (temporal 1, z 0.2)"),
        ({"mask": torch.ones(1, 6, 6), "set_area_to_bounds": True}, "positive has a mask with set_cond_area 'mask bounds'"),
    ],
)
def test_regions_that_a_section_cannot_have_are_refused(cond, said):
    with pytest.raises(ValueError) as error:
        require_region("positive", cond, HEIGHT, WIDTH)

    assert said in str(error.value)


LEFT, RIGHT, ALL = ({"area": area} for area in ((HEIGHT, 10, 0, 0), (HEIGHT, 10, 0, 10), (HEIGHT, WIDTH, 0, 0)))
SIGMAS = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def masked(columns: slice, **values) -> dict:
    """In pixels of the picture."""
    mask = torch.zeros(1, 8 * HEIGHT, 8 * WIDTH)
    mask[:, :, columns] = 1
    return {"mask": mask, "mask_strength": 1.0, **values}


def early(percent: float) -> dict:
    return {"start_percent": 0.0, "end_percent": percent}


def late(percent: float) -> dict:
    return {"start_percent": percent, "end_percent": 1.0}


def require(conds) -> None:
    require_prompt_everywhere("positive", conds, [SIGMAS], lambda percent: 1 - percent, HEIGHT, WIDTH)


@pytest.mark.parametrize("conds", [[], [{}], [LEFT, RIGHT], [ALL], [LEFT, {}], [LEFT, {**RIGHT, "default": True}]])
def test_areas_together_cover_the_picture(conds):
    require(conds)


@pytest.mark.parametrize(
    "conds",
    [
        [masked(slice(None))],
        [masked(slice(0, 80)), masked(slice(80, None))],
        [masked(slice(0, 83)), masked(slice(83, None))],
        [masked(slice(0, 80)), RIGHT],
        [masked(slice(0, 80)), {"default": True}],
        [{"strength": 0.0}, {}],
    ],
)
def test_masks_together_cover_the_picture(conds):
    require(conds)


@pytest.mark.parametrize(
    "conds",
    [[early(1.0)], [early(0.5), late(0.5)], [early(0.3), {}], [early(0.3), {"default": 1}], [{**LEFT, **early(0.5)}, {}]],
)
def test_timestep_ranges_together_cover_the_steps(conds):
    require(conds)


@pytest.mark.parametrize(
    "conds",
    [
        [LEFT],
        [LEFT, {"area": (6, 10, 0, 10)}],
        [{"area": ("percentage", 0.5, 0.5, 0.0, 0.0)}],
        [masked(slice(0, 80))],
        [masked(slice(0, 0))],
        [masked(slice(None), mask_strength=0.0)],
        [masked(slice(None), **LEFT)],
        [{"strength": 0.0}],
    ],
)
def test_a_part_without_a_prompt_is_refused(conds):
    with pytest.raises(ValueError, match="positive leaves part of the picture without a prompt in the step at sigma 1,"):
        require(conds)


def test_a_part_that_loses_its_prompt_on_the_way_is_refused():
    with pytest.raises(ValueError, match=r"without a prompt in the step at sigma 0\.5, because of areas, masks or strengths"):
        require([early(0.3), LEFT])


@pytest.mark.parametrize(
    ("conds", "sigma"),
    [([early(0.3)], "0.5"), ([late(0.1)], "1"), ([early(0.2), late(0.6)], "0.75"), ([{**early(0.3), "default": 1}], "0.5")],
)
def test_steps_without_a_prompt_are_refused(conds, sigma):
    with pytest.raises(ValueError, match=f"positive has no prompt for the step at sigma {sigma}, because of a timestep range"):
        require(conds)


def test_an_area_of_the_whole_picture_changes_nothing_and_a_part_does(checkpoint):
    """The second condition covers half of the picture."""
    model = load_path(str(checkpoint), {})
    inputs = given.inputs()
    plain = sample(model, inputs, sections=1, steps=2)

    whole = sample(model, inputs, sections=1, steps=2, regions=[(given.HEIGHT, given.WIDTH, 0, 0)])
    half = sample(model, inputs, sections=1, steps=2, regions=[(given.HEIGHT, given.WIDTH, 0, 0), (given.HEIGHT, 4, 0, 0)])

    assert torch.equal(whole, plain)
    assert not torch.equal(half[..., :4], plain[..., :4])
