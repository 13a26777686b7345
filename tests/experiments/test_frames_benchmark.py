"""What the benchmark of given frames sees: joins, and how near to what was given a video is."""

import numpy as np
import pytest

from experiments.benchmarks.frames import (
    WAYS,
    Piece,
    Way,
    film,
    held,
    joins,
    kept,
    kept_alone,
    psnr,
    strides,
    through_codec,
    through_vae,
)
from experiments.measures.tracks import follow
from framepack_core.demo.world import Scene
from framepack_core.frames import PIXEL_FRAMES

SCENES = [Scene.draw(seed).with_motion("stop", seed) for seed in (2_000_001, 2_000_004)]
ORBITS = 2_000_003  # a scene whose only shape then stays in the picture, all of it
EXTENSIONS = [(way, order) for way in WAYS if "clip" in way.name for order in way.orders]
CLIP, STILL = (next(way for way in WAYS if way.name == name) for name in ("a clip is continued", "a still in mid-video"))


@pytest.fixture(scope="module")
def worlds() -> list[np.ndarray]:
    return [scene.render(145) for scene in SCENES]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_where_nothing_jumps_no_join_is_seen(way, worlds):
    """A loop's latent frames begin one frame earlier, since no start image is in it."""
    for world in worlds:
        frames = through_vae(world[: way.frames + way.loop])
        steps = joins(way, frames[way.loop :])

        assert len(steps) == len(way.joins)
        assert all(0.7 < step < 1.4 for step in steps)


def test_a_jump_is_seen_where_it_is(worlds):
    one, other = map(through_vae, worlds)
    border = CLIP.joins[0]

    steps = joins(CLIP, np.concatenate([one[:border], other[border:109]]))

    assert steps[0] > 3 and steps[1] < 1.4


def test_beside_a_clip_that_hardly_changes_a_join_is_measured_by_what_is_made(worlds):
    border = 73
    way = Way("a long clip", (border,), (Piece("start", 0, border),))
    noise = np.random.default_rng(0).integers(-20, 20, worlds[0][border:109].shape)
    frames = np.concatenate([worlds[0][:border], np.clip(worlds[0][border:109] + noise, 0, 255).astype(np.uint8)])

    assert joins(way, frames)[0] > 3
    assert 0.5 < joins(way, frames, among_made=True)[0] < 1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_shape_that_travels_on_takes_its_usual_step_at_joins(way):
    scene = Scene.draw(ORBITS).with_motion("orbit", ORBITS)
    (track,) = follow(scene.render(way.frames), scene)

    steps = strides(way, track)

    assert steps and all(0.9 < step < 1.1 for step in steps[: len(steps) - way.loop])  # the world's videos are no loops


def test_a_shape_that_leaps_takes_a_longer_step_there():
    scene = Scene.draw(ORBITS).with_motion("orbit", ORBITS)
    world, border = scene.render(145), CLIP.joins[1]
    (track,) = follow(np.concatenate([world[:border], world[border + 8 : border + 44]]), scene)

    first, second = strides(CLIP, track)

    assert 0.9 < first < 1.1 and 2.8 < second < 3.2  # 12 frames' way in four


def test_the_step_of_a_shape_that_stands_still_is_no_measure(worlds):
    (track, *_) = follow(worlds[0], SCENES[0])

    assert strides(CLIP, track) == []


@pytest.mark.slow
@pytest.mark.parametrize("way", [CLIP, STILL], ids=lambda way: way.name)
def test_what_was_given_is_as_near_as_the_vae_and_the_codec_let_it_be(way, worlds):
    one, other = worlds
    for piece in way.given:
        made = through_vae(held(way, one))

        assert kept(way, piece, one, made) == 0 and abs(kept_alone(piece, one, made)) < 1.5
        assert kept(way, piece, one, through_vae(other)) < -5 and kept_alone(piece, one, through_vae(other)) < -5


def test_the_codec_costs_less_than_the_vae(worlds):
    assert psnr(through_codec(worlds[0]), worlds[0]) > psnr(through_vae(worlds[0]), worlds[0]) + 2


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_ends_in_a_file_that_keeps_what_it_was_given(way: Way, server):
    """Even beside what one step a section makes, which is noise."""
    least = -2 if any(piece.still and piece.at != "start" for piece in way.given) else -0.5
    for order in way.orders:
        video = film(server, way, order, number=0, steps=1)

        assert len(video.joins) == len(way.joins) and min(video.joins) > 0
        assert all(near is None or near > least for near in (video.given, video.alone))


def test_joins_begin_latent_frames():
    for way in WAYS:
        assert {join % PIXEL_FRAMES for join in way.joins} == {0 if way.loop else 1}, way.name


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(("way", "order"), EXTENSIONS, ids=lambda value: getattr(value, "name", value))
def test_an_extension_keeps_the_clip_goes_on_as_told_and_keeps_its_colour(way: Way, order: str, server):
    """Of four scenes 2 to 4 go on as told; docs/measuring.md has the figures of eight."""
    videos = [film(server, way, order, number, steps=8) for number in range(4)]

    assert all(video.given is not None and video.given > -1 for video in videos)  # dB
    assert np.median([step for video in videos for step in video.strides]) < 1.5
    assert any(video.obeys for video in videos)
    assert np.median([np.inf if video.colour is None else video.colour for video in videos]) < 12
