"""The section loop: noise, context, writing, and stopping."""

import pytest
import torch

from framepack_core.plan import Plan
from framepack_core.sections import generate
from framepack_core.timeline import Timeline

START = torch.full((1, 16, 1, 4, 6), 0.5)


def numbered(noise, context):
    """A model whose frames show which section and frame they are."""
    frames = torch.tensor([100.0 * (context.section.number + 1) + frame for frame in context.section.target])
    return torch.zeros_like(noise) + frames[:, None, None]


def run(plan, denoise, seed=0, **kwargs):
    timeline = Timeline.of(1 + plan.generated, {0: START}, **kwargs)
    return timeline, generate(plan.bind(timeline), timeline, denoise, seed)


def values(latents):
    """One number per frame."""
    return latents[0, 0, :, 0, 0].tolist()


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_one_cpu_generator_draws_the_noise_of_all_sections_in_sampling_order(order):
    drawn = []
    _, loop = run(Plan.of(3.6, order), lambda noise, context: drawn.append(noise) or noise, seed=7)

    list(loop)

    generator = torch.Generator("cpu").manual_seed(7)
    expected = [torch.randn((1, 16, 9, 4, 6), generator=generator) for _ in range(3)]
    assert len(drawn) == 3
    assert all(torch.equal(noise, reference) for noise, reference in zip(drawn, expected, strict=True))


def test_endpoints_draw_the_noise_of_both_ends_at_once():
    shapes = []
    _, loop = run(Plan.of(3.6, "endpoints"), lambda noise, context: shapes.append(noise.shape) or noise)

    list(loop)

    assert [tuple(shape) for shape in shapes] == [(1, 16, 18, 4, 6), (1, 16, 9, 4, 6)]


def test_noise_comes_for_the_whole_batch():
    timeline = Timeline.of(10, {0: START.expand(3, -1, -1, -1, -1)})

    ((_, latents),) = generate(Plan.of(1.2).bind(timeline), timeline, lambda noise, context: noise, 0)

    assert latents.shape == (3, 16, 9, 4, 6)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)

    list(run(Plan.of(2.4), lambda noise, context: noise)[1])

    assert torch.equal(torch.randn(4), expected)


@pytest.mark.parametrize(
    ("order", "numbers"),
    [("inverted", [3, 2, 1]), ("forward", [1, 2, 3]), ("endpoints", [1, 2, 1])],
)
def test_every_section_is_written_to_its_place_and_yielded(order, numbers):
    timeline, loop = run(Plan.of(3.6, order), numbered)

    yielded = [(section.target, latents) for section, latents in loop]

    expected = [100.0 * number + 9 * i + j for i, number in enumerate(numbers) for j in range(1, 10)]
    assert values(timeline.latents) == [0.5, *expected]
    assert all(torch.equal(timeline.read(target), latents) for target, latents in yielded)
    assert timeline.known == set(range(28))


def test_a_section_sees_what_the_ones_before_it_wrote():
    contexts = []

    def denoise(noise, context):
        contexts.append([values(latents) for latents in context.latents])
        return numbered(noise, context)

    list(run(Plan.of(2.4, "forward"), denoise)[1])

    nothing = [0.0]
    assert contexts[0] == [nothing * 16, nothing * 2, [0.5], [0.5]]
    assert contexts[1] == [[*nothing * 9, 0.5, *range(101, 107)], [107, 108], [0.5], [109]]


def test_the_first_sampled_section_sees_the_end_frame_and_no_other_does():
    contexts = []
    timeline, loop = run(
        Plan.of(2.4),
        lambda noise, context: contexts.append([values(latents) for latents in context.latents]) or noise * 0 + 1,
        end=START * 2,
    )

    list(loop)

    assert contexts[0] == [[0.0] * 16, [0.0] * 2, [0.5], [1.0]]
    assert contexts[1] == [[1.0] * 6 + [0.0] * 10, [1.0] * 2, [0.5], [1.0]]
    assert values(timeline.latents) == [0.5] + [1.0] * 18


def test_nothing_is_sampled_before_it_is_asked_for():
    calls = []
    timeline, loop = run(Plan.of(3.6, "forward"), lambda noise, context: calls.append(context) or noise)

    next(loop)
    next(loop)
    loop.close()

    assert len(calls) == 2
    assert timeline.known == set(range(19))


def test_what_is_done_stays_when_a_section_is_interrupted():
    def interrupted(noise, context):
        if context.section.number == 1:
            raise KeyboardInterrupt
        return numbered(noise, context)

    timeline, loop = run(Plan.of(3.6), interrupted)

    with pytest.raises(KeyboardInterrupt):
        list(loop)

    assert timeline.known == {0, *range(19, 28)}
    assert values(timeline.latents)[10:] == [0.0] * 9 + [100.0 + frame for frame in range(19, 28)]


# Sections from an earlier run


def test_finished_sections_are_taken_one_by_one_and_the_others_come_out_as_they_would_have():
    _, undisturbed = run(Plan.of(4.8), lambda noise, context: noise, seed=7)
    expected = [latents for _, latents in undisturbed]
    timeline, taken = Timeline.of(37, {0: START}), []

    def finished():
        for latents in expected[:2]:
            taken.append(len(timeline.known))
            yield latents

    found = [latents for _, latents in generate(Plan.of(4.8).bind(timeline), timeline, lambda noise, _: noise, 7, finished())]

    assert all(map(torch.equal, found, expected))
    assert taken == [1, 10]  # the second one only when the first was in its place


@pytest.mark.parametrize(
    ("finished", "message"),
    [
        ([torch.zeros(1, 16, 9, 4, 6), torch.zeros(1, 16, 9, 6, 4)],
         r"finished section 2 has shape \(1, 16, 9, 6, 4\), expected \(1, 16, 9, 4, 6\)"),
        ([torch.zeros(1, 16, 9, 4, 6)] * 4, "more finished sections than the 3 of the video"),
    ],
)  # fmt: skip
def test_finished_sections_that_do_not_fit_are_refused_before_anything_is_sampled(finished, message):
    timeline = Timeline.of(28, {0: START})

    def denoise(noise, context):
        raise AssertionError("a section was sampled")

    with pytest.raises(ValueError, match=message):
        list(generate(Plan.of(3.6).bind(timeline), timeline, denoise, 0, finished))
