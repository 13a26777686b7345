"""What the benchmark of single pictures sees: where the shape is, and whether it is there at all."""

import numpy as np
import pytest

from experiments.benchmarks.oneframe import INDICES, Place, figures, place, places, shown_by
from framepack_core.demo.world import Scene

ORBITS = 2_000_003  # a scene whose only shape stays in the picture, all of it
SCENE = Scene.draw(ORBITS).with_motion("orbit", ORBITS)
WORLD = SCENE.render(60)


@pytest.mark.parametrize("index", INDICES)
def test_the_world_s_own_picture_is_where_it_should_be(index):
    frames = WORLD[shown_by(index)]

    distance, fit = place(frames[1], SCENE, frames)

    assert distance == pytest.approx(0, abs=0.01) and fit is not None and fit > 0.9


def test_a_picture_of_another_time_is_as_far_off_as_the_shape_has_gone():
    later, now = WORLD[shown_by(9)], WORLD[shown_by(1)]
    gone = np.hypot(SCENE.truth(33)[0].x - SCENE.truth(4)[0].x, SCENE.truth(33)[0].y - SCENE.truth(4)[0].y)

    distance, _ = place(later[0], SCENE, now)

    assert distance == pytest.approx(gone, abs=2)


def test_a_picture_without_the_shape_has_lost_it():
    assert place(np.full_like(WORLD[0], 128), SCENE, WORLD[:4]) == Place(None, None)


def test_figures_are_the_median_what_nine_in_ten_reach_and_how_many_are_lost():
    found = [*(Place(float(distance), 0.8) for distance in range(1, 11)), Place(None, None)]

    assert figures(found) == ("11", "5.5 (9.0)", "0.80", "1")


@pytest.mark.server
@pytest.mark.slow
def test_pictures_are_made_for_every_index_at_which_the_shape_is_whole(server):
    found = dict(places(server, number=5, steps=1))  # orbits

    assert list(found) and set(found) <= set(INDICES)
