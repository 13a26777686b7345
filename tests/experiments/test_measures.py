"""The measures tell all motions of the world apart, and react to what a model could do wrong."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experiments.measures import motions, tracks
from framepack_core.demo.world import COLOURS, MOTIONS, SHAPES, Scene

HELD_OUT = 4_000_000
TWO_SECTIONS = 73  # frames of the shortest video in which all motions can be told apart
CASES = [(HELD_OUT + number, list(MOTIONS)[number % len(MOTIONS)]) for number in range(108)]


def scene_of(seed: int, motion: str, shape: str | None = None) -> Scene:
    """A scene with one shape. A circle that should spin becomes a square: nobody sees a circle spin."""
    scene = Scene.draw(seed, shapes=1).with_motion(motion)
    if shape or (motion, scene.actors[0].shape) == ("spin", "circle"):
        scene = dataclasses.replace(scene, actors=(dataclasses.replace(scene.actors[0], shape=shape or "square"),))
    return scene


def track_of(scene: Scene, frames: np.ndarray) -> tracks.Track:
    return tracks.follow(frames, scene)[0]


def obeyed(scene: Scene, frames: np.ndarray) -> list[str]:
    track = track_of(scene, frames)
    return [motion for motion in MOTIONS if motions.obeys(motion, track)]


def blurred(frames: np.ndarray, deviation: float) -> np.ndarray:
    weights = torch.exp(-(torch.arange(-4, 5.0) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    images = torch.from_numpy(frames).float().movedim(-1, 1).flatten(0, 1)[:, None]
    images = F.conv2d(F.pad(images, (4, 4, 4, 4), "reflect"), weights[None, None, :, None])
    images = F.conv2d(images, weights[None, None, None])[:, 0].unflatten(0, (-1, 3)).movedim(1, -1)
    return images.round().byte().numpy()


def noisy(frames: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def shifted(frames: np.ndarray, *rgb: int) -> np.ndarray:
    return np.clip(frames.astype(int) + rgb, 0, 255).astype(np.uint8)


# Obedience


@pytest.mark.slow
@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_of_the_world_obeys_its_own_motion_and_no_other(motion):
    seeds = [seed for seed, told in CASES if told == motion]

    found = {seed: obeyed(scene := scene_of(seed, motion), scene.render(TWO_SECTIONS)) for seed in seeds}

    assert len(seeds) >= 12
    assert found == {seed: [motion] for seed in seeds}


@pytest.mark.parametrize("motion", ["left", "up", "bounce", "orbit", "grow", "stop"])
def test_also_over_six_sections_in_which_shapes_leave_and_come_back(motion):
    scene = scene_of(HELD_OUT, motion)

    assert obeyed(scene, scene.render(217)) == [motion]


@pytest.mark.parametrize("motion", MOTIONS)
def test_one_section_is_enough_for_a_motion_to_be_obeyed(motion):
    scene = scene_of(HELD_OUT + 1, motion)

    assert motion in obeyed(scene, scene.render(37))


@pytest.mark.parametrize("motion", MOTIONS)
def test_what_a_vae_does_to_a_clip_changes_no_verdict(motion):
    scene = scene_of(HELD_OUT + 2, motion)

    frames = shifted(noisy(blurred(scene.render(TWO_SECTIONS), 1.5), 8), 8, -6, 5)

    assert obeyed(scene, frames) == [motion]


@pytest.mark.slow
def test_both_shapes_of_a_scene_are_judged_unless_one_hides_the_other():
    judged = 0
    for seed in range(HELD_OUT, HELD_OUT + 10):
        scene = Scene.draw(seed, shapes=2)
        for actor, track in zip(scene.actors, tracks.follow(scene.render(TWO_SECTIONS), scene), strict=True):
            if not motions.hidden(track):
                judged += 1
                assert motions.obeys(actor.motion, track)

    assert judged >= 16


@pytest.mark.parametrize("motion", ["left", "down", "orbit", "spin"])
def test_the_clip_played_backwards_does_not_obey(motion):
    scene = scene_of(HELD_OUT + 3, motion)
    frames = scene.render(TWO_SECTIONS)[::-1].copy()

    assert (motion in obeyed(scene, frames)) == (motion == "spin")  # nothing says which way a shape spins


def test_a_frozen_clip_obeys_stop_alone():
    scene = scene_of(HELD_OUT + 4, "left")
    frames = np.repeat(scene.render(1), TWO_SECTIONS, axis=0)

    assert obeyed(scene, frames) == ["stop"]


def test_a_clip_that_moves_at_a_quarter_of_the_speed_does_not_obey():
    scene = scene_of(HELD_OUT, "right")
    frames = scene.render(19).repeat(4, axis=0)[:TWO_SECTIONS]

    assert "right" not in obeyed(scene, frames)


def test_noise_obeys_nothing():
    scene = scene_of(HELD_OUT, "stop")
    frames = np.random.default_rng(0).integers(256, size=(TWO_SECTIONS, 128, 128, 3), dtype=np.uint8)
    frames[0] = scene.render(1)[0]

    assert obeyed(scene, frames) == []


def test_a_shape_that_vanishes_obeys_nothing_and_is_lost():
    scene = scene_of(HELD_OUT, "stop")
    frames = scene.render(TWO_SECTIONS)
    empty = dataclasses.replace(scene, actors=())
    frames[8:] = empty.render(len(frames) - 8)

    assert obeyed(scene, frames) == []
    assert motions.lost(track_of(scene, frames))


def test_a_smear_obeys_nothing():
    scene = scene_of(HELD_OUT, "orbit")
    frames = scene.render(TWO_SECTIONS)
    smear = np.stack([extreme(frames[max(number - 40, 0) : number + 1], scene) for number in range(len(frames))])

    assert obeyed(scene, frames) == ["orbit"]
    assert obeyed(scene, smear) == []


def test_a_shape_in_two_places_does_not_obey():
    scene = scene_of(HELD_OUT, "down")
    frames = scene.render(TWO_SECTIONS)
    twice = np.stack([extreme(frames[[number, 0]], scene) for number in range(len(frames))])

    assert "down" not in obeyed(scene, twice)


def extreme(frames: np.ndarray, scene: Scene) -> np.ndarray:
    """One frame that shows the shape wherever any of the frames does."""
    ground = dataclasses.replace(scene, actors=()).render(1)[0]
    furthest = np.abs(frames.astype(int) - ground).sum(axis=-1).argmax(axis=0)
    return np.take_along_axis(frames, furthest[None, ..., None], axis=0)[0]


def test_a_shape_that_only_stretches_does_not_grow():
    scene = scene_of(HELD_OUT, "grow")
    frames = scene.render(TWO_SECTIONS)
    place = scene.truth(0)[0]
    stretched = []
    for frame in range(TWO_SECTIONS):
        factor = 1 + 1.2 * frame / TWO_SECTIONS
        rows = np.clip(np.round(place.y + (np.arange(128) - place.y) / factor), 0, 127).astype(int)
        stretched.append(frames[0][rows])

    assert obeyed(scene, frames) == ["grow"]
    assert obeyed(scene, np.stack(stretched)) == []


def test_an_unknown_motion_and_a_video_of_another_size_are_refused():
    scene = scene_of(HELD_OUT, "stop")

    with pytest.raises(ValueError, match="motion is 'jumps'; choose one of left, right"):
        motions.obeys("jumps", track_of(scene, scene.render(8)))
    with pytest.raises(ValueError, match=r"shape \(2, 64, 64, 3\) is not of the demo's world"):
        tracks.follow(scene.render(2, size=64), scene)


# Where a shape is


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_track_is_the_truth_to_half_a_pixel(motion):
    scene = scene_of(HELD_OUT + 5, motion)
    track = track_of(scene, scene.render(TWO_SECTIONS))
    truth = np.array([scene.truth(frame)[0][:2] for frame in range(TWO_SECTIONS)])

    whole = track.whole

    assert whole.any()
    assert np.abs(track.x[whole] - truth[whole, 0]).max() < 0.5
    assert np.abs(track.y[whole] - truth[whole, 1]).max() < 0.5


def test_a_shape_that_leaves_has_its_speed_until_it_is_gone():
    scene = scene_of(HELD_OUT + 6, "right", shape="circle")
    track = track_of(scene, scene.render(160))

    assert not track.seen.all()
    assert motions.speed(track) == pytest.approx(1.0, abs=0.05)


def test_long_videos_are_measured_as_short_ones_are():
    scene = scene_of(HELD_OUT, "orbit")
    frames = scene.render(tracks.CHUNK + 20)

    whole, end = track_of(scene, frames), track_of(scene, frames[tracks.CHUNK :])

    np.testing.assert_allclose(whole[tracks.CHUNK :].x, end.x)


# Colour and identity


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_is_found_and_keeps_its_place_in_lab(colour):
    scene = scene_of(HELD_OUT, "stop")
    scene = dataclasses.replace(scene, actors=(dataclasses.replace(scene.actors[0], colour=colour),))
    start, track = track_of(scene, scene.render(1)), track_of(scene, noisy(scene.render(8), 5))

    assert track.seen.all()
    assert motions.colour_distance(track, start) < 1.5


@pytest.mark.parametrize("shift", [10, 25])
def test_a_colour_shift_is_measured_in_full(shift):
    scene = scene_of(HELD_OUT, "stop")
    frames = scene.render(TWO_SECTIONS)
    start, track = track_of(scene, frames[:1]), track_of(scene, shifted(frames, 0, -shift, shift))
    place, colour = scene.truth(0)[0], np.array(COLOURS[scene.actors[0].colour])
    expected = tracks.to_lab(np.stack([colour, np.clip(colour + np.array([0, -shift, shift]), 0, 255)]))

    assert frames[0, int(place.y), int(place.x)].tolist() == colour.tolist()
    assert motions.colour_distance(track, start) == pytest.approx(float((expected[0] - expected[1]).norm()), rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_known_from_every_other_at_every_angle(shape):
    scene = scene_of(HELD_OUT, "spin", shape)
    track = track_of(scene, blurred(scene.render(41), 1.0))

    assert motions.same_kind(track) == 1.0
    assert motions.fit(track) > 0.8
    for other in set(SHAPES) - {shape}:
        swapped = tracks.follow(scene.render(41), scene_of(HELD_OUT, "spin", other))[0]
        assert motions.same_kind(swapped) == 0.0
        assert motions.fit(swapped) < motions.fit(track)


def test_a_shape_that_comes_back_as_it_was_and_one_that_does_not():
    scene = scene_of(HELD_OUT + 6, "right", shape="star")
    changed = dataclasses.replace(
        scene, actors=(dataclasses.replace(scene.actors[0], shape="circle", colour=near(scene.actors[0].colour)),)
    )
    frames = scene.render(217)
    gap = next(frame for frame in range(217) if not scene.truth(frame)[0].visible)

    same = motions.comeback(track_of(scene, frames))
    other = motions.comeback(track_of(scene, np.concatenate([frames[:gap], changed.render(217 - gap, start=gap)])))

    assert same.same and same.colour < 1 and same.fit_after == pytest.approx(same.fit_before, abs=0.03)
    assert 8 <= same.away < 30  # a few pixels of a star's tip are not seen
    assert not other.same and other.colour > 12 and other.fit_after < 0.9


def near(colour: str) -> str:
    """The neighbouring colour on the colour circle, near enough to be followed."""
    circle = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
    followed = {"yellow": "orange", "green": "cyan", "cyan": "blue", "red": "orange"}
    return followed.get(colour) or circle[circle.index(colour) - 1]


def test_what_never_left_has_no_comeback():
    scene = scene_of(HELD_OUT, "orbit")

    assert motions.comeback(track_of(scene, scene.render(TWO_SECTIONS))) is None


def test_nothing_seen_has_no_figures():
    scene = scene_of(HELD_OUT, "stop")
    track = track_of(scene, np.full((8, 128, 128, 3), 128, np.uint8))

    assert not track.seen.any() and motions.lost(track)
    assert all(math.isnan(value) for value in (motions.fit(track), motions.same_kind(track), motions.speed(track)))
    assert math.isnan(motions.colour_distance(track, track))
