"""A section's step cache: which calls it skips, and what it expects instead, against outputs that are known."""

import pytest
import torch

from framepack_core.caching import DAMPING, Magnitudes, Measured, SectionCache, Skipping, Table, Tabulated

SIGMAS = [1 - step / 10 for step in range(10)] + [0.0]
LEVELS = tuple(SIGMAS[:-1])
ALL = Skipping(threshold=1e9, start=0.0, max_skips=100)


def velocity(sigma: float, bend: float = 0.0) -> torch.Tensor:
    return (
        torch.tensor([1.0, 2.0], dtype=torch.float64) + sigma * torch.tensor([3.0, -1.0], dtype=torch.float64) + bend * sigma**2
    )


def run(cache: SectionCache, output=velocity, sigmas=SIGMAS[:-1], conditions=("a",)) -> str:
    """A schedule's calls: # for one that the model got, . for one that was skipped."""
    made = ""
    for sigma in sigmas:
        if cache.skips(sigma, conditions):
            made += "."
            continue
        made += "#"
        for condition in conditions:
            cache.learn(condition, sigma, output(sigma))
    return made


def test_an_output_is_expected_on_the_damped_line_through_the_last_two():
    cache = SectionCache(ALL, Measured(), SIGMAS)
    for sigma in (1.0, 0.9, 0.8):
        cache.learn("a", sigma, velocity(sigma))

    expected = velocity(0.8) + DAMPING * (velocity(0.6) - velocity(0.8))
    torch.testing.assert_close(cache.expected("a", 0.6), expected)


def test_the_rule_must_have_seen_an_error_before_anything_is_skipped_and_the_last_call_never_is():
    assert run(SectionCache(ALL, Measured(), SIGMAS)) == "###......#"


def test_start_end_and_max_skips_say_where_calls_may_be_skipped():
    assert run(SectionCache(Skipping(1e9, start=0.5, max_skips=100), Measured(), SIGMAS)) == "#####....#"
    assert run(SectionCache(Skipping(1e9, start=0.0, end=0.5, max_skips=100), Measured(), SIGMAS)) == "###...####"
    assert run(SectionCache(Skipping(1e9, start=0.0, max_skips=2), Measured(), SIGMAS)) == "###..#..##"


def test_the_larger_the_error_the_fewer_calls_are_skipped():
    skipped = [run(SectionCache(Skipping(0.1), Measured(), SIGMAS), lambda sigma, bend=bend: velocity(sigma, bend)).count(".")
               for bend in (0.0, 5.0, 50.0)]  # fmt: skip

    assert skipped == sorted(skipped, reverse=True) and skipped[0] > skipped[-1] >= 0
    assert run(SectionCache(Skipping(0.0), Measured(), SIGMAS), lambda sigma: velocity(sigma, 5.0)) == "#" * 10


@pytest.mark.parametrize("rule", [Measured(), Tabulated(Table(LEVELS, (1.0,) * 10))], ids=["measured", "tabulated"])
def test_at_a_threshold_of_0_nothing_is_skipped_even_where_no_error_is_expected(rule):
    assert run(SectionCache(Skipping(0.0, start=0.0), rule, SIGMAS), lambda sigma: velocity(1.0)) == "#" * 10


def test_an_error_that_is_no_number_is_none_that_is_allowed():
    assert run(SectionCache(ALL, Measured(), SIGMAS), lambda sigma: torch.full((2,), float("nan"))) == "#" * 10


def test_errors_of_calls_skipped_in_a_row_sum_up():
    rule = Measured()
    rule.learn(0.9, 0.8, torch.tensor(0.01))

    first, second = (rule.error(0.8, sigma) for sigma in (0.7, 0.6))
    assert (first, second) == (pytest.approx(0.1 * 0.1 * 0.7), pytest.approx(0.1 * 0.2 * 0.6))
    for threshold, made in ((first * 0.9, "####"), (first * 1.1, "###."), ((first + second) * 1.1, "###..")):
        cache = SectionCache(Skipping(threshold, start=0.0), rule, SIGMAS)
        for sigma in (1.0, 0.9, 0.8):
            cache.learn("a", sigma, velocity(sigma))
        rule.learn(0.9, 0.8, torch.tensor(0.01))
        assert [cache.skips(sigma, ["a"]) for sigma in (0.7, 0.6)][: len(made) - 3] == [mark == "." for mark in made[3:]]


def test_all_conditions_of_a_step_are_skipped_together():
    cache = SectionCache(ALL, Measured(), SIGMAS)
    for sigma in SIGMAS[:3]:
        for condition in ("positive", "negative"):
            assert not cache.skips(sigma, [condition])
            cache.learn(condition, sigma, velocity(sigma))

    assert cache.skips(SIGMAS[3], ["positive"]) and cache.skips(SIGMAS[3], ["negative"])
    assert not cache.skips(SIGMAS[3], ["a new one"]), "nothing is known of it"
    assert (cache.calls, cache.skipped) == (9, 2)


def test_a_sampler_that_asks_twice_at_a_level_is_given_the_line_through_different_levels():
    twice = [sigma for sigma in SIGMAS[:-1] for _ in range(2)]

    assert run(SectionCache(ALL, Measured(), SIGMAS), sigmas=twice) == "######" + "." * 12 + "##"


def test_a_table_s_error_is_how_far_the_magnitude_has_changed_since_the_last_call():
    rule = Tabulated(Table((1.0, 0.8, 0.6, 0.4, 0.2), (1.0, 1.1, 1.2, 0.9, 1.0)))

    assert rule.error(1.0, 0.8) == pytest.approx(0.1)
    assert rule.error(0.8, 0.4) == pytest.approx(abs(1 - 1.2 * 0.9))


def test_a_table_is_measured_from_what_is_added_to_each_token_at_each_level_of_the_schedule():
    """Two tokens: one is given twice as much at each level, the other always the same. Between levels nothing counts, and the
    first level is that of samplers that begin a little below it, too."""
    magnitudes = Magnitudes([1.0, 0.8, 0.5, 0.0])
    for sigma, factor in ((0.99999, 1.0), (0.8, 2.0), (0.8, 50.0), (0.6, 99.0), (0.5, 4.0)):
        magnitudes.see(sigma, torch.tensor([[[3.0, 4.0], [6.0 * factor, 8.0 * factor]]], dtype=torch.bfloat16))

    assert magnitudes.table().levels == (1.0, 0.8, 0.5)
    assert magnitudes.table().ratios == pytest.approx([1.0, 1.5, 1.5])


def test_a_table_counts_by_noise_level_whatever_part_of_the_way_a_schedule_goes():
    """Measured from 1 down to 0.1; a video that is denoised from 0.5 on has the errors of these levels."""
    ratios = (1.0, *[2.0] * 4, *[1.0] * 5)
    part = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    cache = SectionCache(Skipping(0.01, start=0.0), Tabulated(Table(LEVELS, ratios)), part)

    assert run(cache, sigmas=part[:-1]) == "##..#"


@pytest.mark.parametrize(("last", "sigma"), [(0.9, 0.8), (0.3, 0.1)])
def test_beyond_a_table_s_levels_no_output_is_expected_to_be_right(last, sigma):
    rule = Tabulated(Table((0.8, 0.5, 0.2), (1.0, 1.0, 1.0)))

    assert rule.error(last, sigma) == float("inf")
    assert rule.error(0.8, 0.2) == 0


def test_the_mean_of_tables_has_the_mean_of_each_ratio():
    assert Table.mean([Table((1.0, 0.5), (1.0, 1.25)), Table((1.0, 0.5), (1.0, 0.75))]) == Table((1.0, 0.5), (1.0, 1.0))


def test_a_prompt_for_later_steps_has_errors_of_its_own_from_there_on():
    """`a` for four steps, then `b`: from there on it is as if `a` had never been. Each step is 2% from the one before."""

    def cache() -> SectionCache:
        return SectionCache(Skipping(0.03, start=0.0), Tabulated(Table(LEVELS, (1.0, *[1.02] * 9))), SIGMAS)

    both = cache()
    made = run(both, sigmas=SIGMAS[:4]), run(both, sigmas=SIGMAS[4:-1], conditions=["b"])

    assert made == ("##.#", "##.#.#") == (run(cache(), sigmas=SIGMAS[:4]), run(cache(), sigmas=SIGMAS[4:-1]))


def test_a_prompt_for_later_steps_teaches_the_rule_from_there_on():
    taught: list[float] = []

    class Taught(Measured):
        def learn(self, last: float, sigma: float, error: torch.Tensor) -> None:
            taught.append(sigma)
            super().learn(last, sigma, error)

    cache = SectionCache(Skipping(0.0), Taught(), SIGMAS)
    run(cache, sigmas=SIGMAS[:4])
    run(cache, sigmas=SIGMAS[4:-1], conditions=["b", "a"])

    assert taught == [*SIGMAS[2:4], *SIGMAS[6:-1]]


def test_a_prompt_that_comes_back_is_computed_until_its_line_is_as_new_as_the_leading_one_s():
    cache = SectionCache(ALL, Measured(), SIGMAS)
    run(cache, sigmas=SIGMAS[:3], conditions=["a", "b"])
    cache.learn("a", SIGMAS[3], velocity(SIGMAS[3]))

    assert cache.skips(SIGMAS[4], ["a"]) and not cache.skips(SIGMAS[4], ["b"])
    cache.learn("b", SIGMAS[4], velocity(SIGMAS[4]))
    assert cache.skips(SIGMAS[5], ["a"]) and cache.skips(SIGMAS[5], ["b"])
