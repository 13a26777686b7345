"""Paired differences and their power, against tables, scipy's own tests and simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.study.differences import Difference

REFERENCE, OTHER = (3.0, 5.0, 4.0, 8.0, 6.0), (2.0, 3.0, 4.0, 5.0, 5.0)


def spread(scenes: int) -> Difference:
    """With a mean difference of 0 and a deviation of exactly 1."""
    drawn = np.random.default_rng(0).normal(size=scenes)
    return Difference.of((drawn - drawn.mean()) / drawn.std(ddof=1), np.zeros(scenes))


def test_the_interval_of_one_comparison_is_that_of_the_paired_t_test():
    expected = stats.ttest_rel(REFERENCE, OTHER).confidence_interval(0.95)

    found = Difference.of(REFERENCE, OTHER).interval()

    assert found == pytest.approx((1.4, expected.low, expected.high, 5))


def test_of_ten_comparisons_each_interval_has_a_tenth_of_the_chance_to_be_wrong():
    expected = stats.ttest_rel(REFERENCE, OTHER).confidence_interval(0.995)

    found = Difference.of(REFERENCE, OTHER, comparisons=10).interval()

    assert found[1:3] == pytest.approx((expected.low, expected.high))


def test_scenes_without_a_number_are_left_out_on_both_sides():
    found = Difference.of([1.0, None, 3.0, math.nan, 5.0], [0.0, 1.0, None, 2.0, 3.0])

    assert (found.reference, found.other) == ((1.0, 5.0), (0.0, 3.0))


def test_one_scene_has_a_difference_but_no_bounds_and_no_power():
    found = Difference.of([3.0], [1.0])

    assert found.interval().value == 2.0 and math.isnan(found.interval().low)
    assert math.isnan(found.power(1.0)) and found.scenes_for(1.0) is None
    assert Difference.of([], []).interval().videos == 0


def test_the_power_is_that_of_the_tables():
    """Two-sided at 5 %: 34 pairs for half a deviation, 15 for 0.8 (Cohen's medium and large effects, as in G*Power)."""
    assert spread(34).power(0.5) == pytest.approx(0.808, abs=1e-3)
    assert (spread(10).scenes_for(0.5), spread(10).scenes_for(0.8)) == (34, 15)


def test_so_many_simulated_studies_name_the_effect():
    comparisons, effect, scenes = 6, 1.2, 12
    studies = np.random.default_rng(1).normal(effect, 1.0, size=(4000, scenes))

    named = [Difference.of(study, np.zeros(scenes), comparisons).interval().low > 0 for study in studies]

    expected = Difference.of(spread(scenes).reference, np.zeros(scenes), comparisons).power(effect)
    assert np.mean(named) == pytest.approx(expected, abs=0.025)
    assert 0.5 < expected < 0.95


def test_more_comparisons_have_less_power_and_need_more_scenes():
    alone = spread(12)
    together = Difference.of(alone.reference, alone.other, comparisons=36)

    assert together.power(1.0) < alone.power(1.0)
    assert together.scenes_for(1.0) > alone.scenes_for(1.0)
    assert together.power(1.0, together.scenes_for(1.0)) >= 0.8 > together.power(1.0, together.scenes_for(1.0) - 1)


def test_what_can_hardly_be_seen_has_no_number_of_scenes():
    assert spread(12).scenes_for(1e-6) is None
    assert spread(12).scenes_for(0.0) is None
