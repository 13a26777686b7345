"""The synthetic world: what is rendered is what the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from framepack_core.demo.text import TOKENS, Tokenizer, vocabulary
from framepack_core.demo.world import (
    COLOURS,
    LORA_MOTION,
    MOTIONS,
    SHAPES,
    SIZE,
    SPEED,
    Actor,
    Placement,
    Scene,
    signed_distance,
)

SEEDS = range(60)


def one_actor(motion: str, shape: str = "square") -> Scene:
    scene = Scene.draw(5, shapes=1)
    actor = Actor(shape, "red", motion, x=40.0, y=90.0, radius=14.0)
    return Scene((actor,), scene.background, "")


def test_a_seed_draws_the_same_clip_every_time():
    first, second = Scene.draw(11), Scene.draw(11)

    assert first == second
    assert np.array_equal(first.render(5), second.render(5))


def test_scenes_differ_from_seed_to_seed():
    assert len({Scene.draw(seed) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_first_frame_does_not_depend_on_the_motion(motion):
    scene = Scene.draw(3, shapes=1)

    assert np.array_equal(scene.with_motion(motion).render(1), scene.render(1))


def test_frames_can_be_rendered_from_any_moment():
    scene = Scene.draw(8)

    assert np.array_equal(scene.render(4, start=50), scene.render(54)[50:])


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("frame", [0, 10, 20])
def test_the_mask_lies_where_the_truth_says(motion, frame):
    scene = one_actor(motion)
    place = scene.truth(frame)[0]
    assert all(place.radius < at < SIZE - place.radius for at in (place.x, place.y))  # all of it is in the picture

    mask = scene.mask(0, frame)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5

    assert (mask * x).sum() / mask.sum() == pytest.approx(place.x, abs=0.2)
    assert (mask * y).sum() / mask.sum() == pytest.approx(place.y, abs=0.2)


def test_a_shape_has_its_colour_inside():
    scene = one_actor("stop")
    picture = scene.render(1)[0]

    assert tuple(picture[90, 40]) == COLOURS["red"]


def test_the_first_shape_hides_the_second():
    near, far = Actor("square", "red", "stop", 60, 60, 14), Actor("circle", "blue", "stop", 60, 60, 14)
    scene = Scene((near, far), Scene.draw(0).background, "")

    assert tuple(scene.render(1)[0][60, 60]) == COLOURS["red"]
    assert scene.mask(1, 0)[60, 60] == 0 and scene.mask(0, 0)[60, 60] == 1


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_straight_motion_leaves_the_picture_and_comes_back_on_the_other_side(motion, axis, sign):
    places = [one_actor(motion).truth(frame)[0] for frame in range(300)]
    steps = np.diff([place[axis] for place in places])

    assert np.count_nonzero(np.sign(steps) != sign) in (1, 2)  # the jumps to the other side
    assert any(not place.visible for place in places)
    assert sum(place.visible for place in places) > 200


def test_bounce_returns_to_where_it_began():
    assert one_actor("bounce").truth(72)[0].y == pytest.approx(90)
    assert one_actor("bounce").truth(36)[0].y == pytest.approx(50)


def test_orbit_keeps_its_distance_and_turns_clockwise():
    places = [one_actor("orbit").truth(frame)[0] for frame in (0, 36, 144)]
    distances = [np.hypot(place.x - SIZE / 2, place.y - SIZE / 2) for place in places]

    assert distances == pytest.approx([distances[0]] * 3)
    assert (places[1].x, places[1].y) == pytest.approx((SIZE - 90, 40))  # a quarter turn; y points down
    assert places[2][:2] == pytest.approx(places[0][:2])


def test_grow_and_spin_change_size_and_angle_only():
    assert one_actor("grow").truth(400)[0] == Placement(40, 90, pytest.approx(2.2 * 14), 0, True)
    assert one_actor("spin").truth(30)[0] == Placement(40, 90, 14, pytest.approx(np.pi / 2), True)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stays_within_its_radius_and_reaches_it(shape):
    y, x = np.mgrid[-20:20:401j, -20:20:401j]

    inside = signed_distance(shape, x, y, 10.0) < 0
    reach = np.hypot(x, y)[inside].max()

    assert 10 * 0.95 < reach < 10 * 1.25
    assert inside[200, 200]


def test_no_circle_spins_and_shapes_of_a_scene_differ():
    for seed in range(300):
        actors = Scene.draw(seed).actors
        assert not any(actor.shape == "circle" and actor.motion == "spin" for actor in actors)
        assert len({actor.shape for actor in actors}) == len({actor.colour for actor in actors}) == len(actors)


def test_the_tokenizer_knows_every_caption_and_names_the_words_it_does_not():
    tokenizer = Tokenizer()

    for seed in range(300):
        ids, unknown = tokenizer.encode(Scene.draw(seed, shapes=2).caption)
        assert not unknown and len(ids) == TOKENS and 0 in ids  # nothing was cut off
    assert tokenizer.encode("a red Dragon moves left")[1] == ["dragon"]


def test_a_motion_that_changes_goes_on_from_where_the_first_has_brought_the_shape():
    scene = Scene.draw(5, shapes=1).with_motion("right")
    changed = scene.changed(40, "up")

    assert [changed.truth(frame) for frame in range(41)] == [scene.truth(frame) for frame in range(41)]
    (turn,), (later,) = changed.truth(40), changed.truth(50)
    assert (later.x, later.y) == pytest.approx((turn.x, turn.y - 10 * SPEED))
    np.testing.assert_array_equal(changed.render(1), scene.render(1))


def test_the_motion_of_the_demo_s_lora_is_no_motion_of_the_demo():
    scene = Scene.draw(5, shapes=1).with_motion(LORA_MOTION)

    assert LORA_MOTION not in MOTIONS and all(word in vocabulary() for word in scene.caption.split())
    (start,), (later,) = scene.truth(0), scene.truth(10)
    assert later.x - start.x == pytest.approx(later.y - start.y) == pytest.approx(10 * SPEED / 2**0.5)
