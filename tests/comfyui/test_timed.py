"""Prompts with a time: each section is told what belongs to it, and nothing else is different from a run without times."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import comfy.hooks
import comfy.sample
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from support import given

from framepack_core.comfyui import log
from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.model.transformer import FramePackTransformer
from framepack_core.comfyui.sampling import sample as sampling
from framepack_core.comfyui.sampling.identity import by_content, section_parts
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.comfyui.sampling.timed import TIME, Told, encode, with_parts, with_time
from framepack_core.made import Made
from framepack_core.plan import Plan
from framepack_core.prompts import Span, parse, span_of
from framepack_core.redo import redo
from framepack_core.store.kept import section_keys

INPUTS = given.inputs()
START = {"samples": INPUTS.start}
STEPS = 2


class Words:
    """A text encoder for which each text has its own length and values."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list:
        self.encoded.append(text)
        generator = torch.Generator().manual_seed(sum(text.encode()))
        tensor = torch.randn(1, 3 + len(text), 64, generator=generator)
        return [[tensor, {"pooled_output": torch.randn(1, 768, generator=generator)}]]


def prompt(text: str) -> list:
    return encode(Words(), parse(text))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_path(str(checkpoint), {})


@pytest.fixture
def calls(monkeypatch) -> list[list[int]]:
    """Of each call of the transformer, the lengths of the texts in it."""
    found: list[list[int]] = []
    forward = FramePackTransformer._forward

    def counted(self, x, timestep, context, *args, **kwargs):
        found.append([context.shape[1] - 3] * len(context))
        return forward(self, x, timestep, context, *args, **kwargs)

    monkeypatch.setattr(FramePackTransformer, "_forward", counted)
    return found


def request(
    model, positive: list, negative: list | None = None, order: str = "forward", sections: int = 3, cfg: float = 1.0, **plan
) -> Request:
    planned = Plan.of(sections * 1.2, order, **plan)
    timeline = Given(START).timeline(planned)
    bound = planned.bind(timeline)
    guider = make_guider(model, positive, negative, cfg, given.GUIDANCE)
    sigmas = section_sigmas(bound, timeline, STEPS, 0.0)
    image = {"last_hidden_state": INPUTS.image}
    return Request(guider, sampler_named("euler"), planned, timeline, bound, sigmas, 7, image)


def video(model, positive: list, *others, said: Callable[[str], None] = lambda line: None, **plan) -> torch.Tensor:
    return sampling.sample(request(model, positive, *others, **plan), said).latents


def told_of(asked: Request) -> Told:
    return Told.of(asked.guider.original_conds, asked.sections, asked.length, asked.plan.fps)


def lengths(text: str, plan: Plan) -> list[int]:
    """Of the texts that the sections are told, in sampling order."""
    conds = {"positive": [values | {"cross_attn": tensor} for tensor, values in prompt(text)]}
    told = Told.of(conds, plan.fill(1 + plan.generated), plan.length(1 + plan.generated), 30.0)
    return [entry["cross_attn"].shape[1] - 3 for conds in told.conditions.values() for entry in conds["positive"]]


def advice(text: str, plan: Plan) -> list[str]:
    """The notes of a video after a start image that speak of parts."""
    conds = {"positive": [values | {"cross_attn": tensor} for tensor, values in prompt(text)]}
    frames = 1 + plan.generated
    made = with_parts(plan, conds, frames, [0])
    told = Told.of(conds, made.fill(frames), made.length(frames, 1), made.fps)
    return [note for note in told.notes if "parts" in note]


@pytest.mark.parametrize("text", ["a [1.3s: bb]", "a [1.3s ~2.4s: bb]", "a [1.3s-2.5s ~1s: bb]"])
@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_parts_are_recommended_only_where_prompts_have_none(order, text):
    plan = Plan.of(4.8, order)

    assert advice(text, plan)[0].endswith("set the plan's parts to prompts")
    assert not advice(text, plan.in_parts_of("prompts"))


def test_parts_are_not_recommended_where_they_change_nothing():
    assert not advice("a [1.3s: bb]", Plan.of(4.8, "forward").in_clips(True))
    assert not advice("a [1.3s: bb]", Plan.of(4.8, "forward", layout="vanilla"))


ABC = "a [1.3s: bb] [2.5s: ccc]"


@pytest.mark.parametrize("order", ["forward", "inverted", "endpoints"])
def test_a_section_is_told_its_own_words_in_one_call_a_step(model, calls, order):
    video(model, prompt(ABC), order=order)

    expected = {"forward": [1, 2, 3], "inverted": [3, 2, 1], "endpoints": [1, 2]}[order]
    assert calls == [[length] for length in expected for _ in range(STEPS)]


def test_two_hundred_prompts_cost_one_call_a_step_too(model, calls):
    video(model, prompt("".join(f"[{number / 50}s: {'x' * number}y]" for number in range(200))))

    assert len(calls) == 3 * STEPS


@pytest.mark.parametrize("order", ["forward", "inverted", "endpoints"])
@pytest.mark.parametrize("text", ["one for all", "[0s: one for all]", "[1s: one for all]", "one for all [9s: another]"])
def test_one_prompt_for_all_is_bit_for_bit_the_untimed_run(model, order, text):
    plain = Words().encode_from_tokens_scheduled("one for all")

    assert torch.equal(video(model, prompt(text), order=order), video(model, plain, order=order))


def test_up_to_a_change_the_video_is_that_without_it(model):
    changed, plain = video(model, prompt("a [1.3s: bb]")), video(model, prompt("a"))

    assert torch.equal(changed[:, :, :10], plain[:, :, :10]) and not torch.equal(changed[:, :, 10:], plain[:, :, 10:])


def test_negative_prompts_have_times_of_their_own(model, calls):
    video(model, prompt("a [2.5s: ccc]"), prompt("nnnnn [1.3s: mmmmmm]"), cfg=2.0)

    pairs = [sorted(length for [length] in calls[at : at + 2]) for at in range(0, len(calls), 2)]
    assert pairs == [[1, 5]] * STEPS + [[1, 6]] * STEPS + [[3, 6]] * STEPS


def test_any_conditioning_can_have_a_time_and_be_combined_in_any_order(model):
    parts = [prompt("a"), with_time(prompt("bb"), span_of(1.3, 2.5)), with_time(prompt("ccc"), span_of(-1.1, 0))]

    found = [video(model, [*chain.from_iterable(order)]) for order in (parts, parts[::-1])]

    assert all(torch.equal(one, video(model, prompt(ABC))) for one in found)


def test_prompts_of_the_same_time_are_combined_as_ever(model, calls):
    both = [*with_time(prompt("bb"), span_of(1.3, 0)), *with_time(prompt("ccc"), span_of(1.3, 0))]

    video(model, [*prompt("a"), *both], sections=2)

    assert sorted(calls[STEPS:]) == [[2]] * STEPS + [[3]] * STEPS


def test_hooks_act_in_their_time_only(model):
    def hooked(values: list) -> list:
        hook = comfy.hooks.WeightHook()
        weight = model.model.diffusion_model.double_blocks[0].img_mlp[0].weight
        hook.weights = {"diffusion_model.double_blocks.0.img_mlp.0.weight": ("diff", (torch.ones_like(weight),))}
        hook.need_weight_init = False
        group = comfy.hooks.HookGroup()
        group.add(hook)
        return [[tensor, {**options, "hooks": group}] for tensor, options in values]

    plain, late = video(model, prompt("a")), video(model, [*prompt("a"), *with_time(hooked(prompt("a")), span_of(1.3, 0))])
    always = video(model, hooked(prompt("a")))

    assert torch.equal(late[:, :, :10], plain[:, :, :10]) and not torch.equal(late[:, :, 10:19], plain[:, :, 10:19])
    assert not torch.equal(always[:, :, 1:10], plain[:, :, 1:10])
    assert torch.equal(video(model, prompt("a")), plain), "and the model stays as it was"


FADE = "[0s: {}] [1.3s ~2.4s: {}]"  # the second section is told the second prompt by 24%, the third by 72%


def test_a_fade_between_texts_of_one_length_costs_nothing(model, calls):
    found = video(model, prompt(FADE.format("aa", "bb")))
    hard, weights = video(model, prompt("[0s: aa] [1.3s: bb]")), [1.0, 0.76, 0.28]

    assert calls == [[2]] * (6 * STEPS)
    assert torch.equal(found[:, :, :10], hard[:, :, :10]) and not torch.equal(found[:, :, 10:19], hard[:, :, 10:19])
    told = told_of(request(model, prompt(FADE.format("aa", "bb"))))
    one, other = (Words().encode_from_tokens_scheduled(text)[0][0] for text in ("aa", "bb"))
    for weight, (cond,) in zip(weights, (conds["positive"] for conds in told.conditions.values()), strict=True):
        torch.testing.assert_close(cond["cross_attn"], weight * one + (1 - weight) * other)


def test_a_fade_between_texts_of_other_lengths_weighs_both(model, calls):
    video(model, prompt(FADE.format("a", "bbbb")))

    told = told_of(request(model, prompt(FADE.format("a", "bbbb"))))
    strengths = [[cond.get("strength", 1.0) for cond in conds["positive"]] for conds in told.conditions.values()]
    assert strengths == [[1.0], [pytest.approx(0.76), 0.24], [pytest.approx(0.28), 0.72]]
    assert sorted(calls[STEPS : 3 * STEPS]) == [[1]] * STEPS + [[4]] * STEPS


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loop": 1}, [1, 1, 2, 3]),
        ({"exact_length": True}, [1, 2, 3]),
        ({"seconds": 1.2}, [1]),
    ],
)
def test_loops_exact_lengths_and_single_sections_have_times_too(changes, expected):
    plan = Plan.of(**{"seconds": 3.6, "order": "forward"} | changes)

    assert lengths("a [1.3s: bb] [2.5s: ccc]" if "loop" not in changes else "a [2.4s: bb] [3.6s: ccc]", plan) == expected


@pytest.mark.parametrize("order", ["forward", "inverted", "endpoints"])
def test_a_section_that_is_made_again_is_told_the_same(order):
    plan, latents = Plan.of(3.6, order), torch.zeros(1, 16, 28, given.HEIGHT, given.WIDTH)
    conds = {"positive": [values | {"cross_attn": tensor} for tensor, values in prompt("a [1.5s-1.8s: bb] [2.5s: ccc]")]}
    sections = plan.fill(28)
    before = Told.of(conds, sections, plan.length(28), plan.fps)

    for section in sections:
        again, frames = redo(Made(plan, (0,), 28), latents, {section.number})
        made = again.bind(Given(frames=frames).timeline(again))
        told = Told.of(conds, made, again.length(28), again.fps)
        assert told.words[0] == before.words[section.number] or len(section.target) > plan.window
        assert not told.notes or order == "endpoints"


def test_guiders_of_several_prompts_have_times_for_each(model, calls):
    asked = request(model, prompt("a"), sections=2)
    guider = Guider_DualCFG(model)
    guider.set_conds(prompt("a [1.3s: bb]"), prompt("mmmmm"), prompt("nnnnnn [1.3s: nnnnnnn]"))
    guider.set_cfg(2.0, 1.5)

    sampling.sample(replace(asked, guider=guider), lambda line: None)

    steps = [{length for [length] in calls[at : at + 3]} for at in range(0, len(calls), 3)]
    assert steps == [{1, 5, 6}] * STEPS + [{2, 5, 7}] * STEPS


def test_the_node_says_which_section_is_told_what(model):
    said: list[str] = []

    video(model, [*prompt("zz"), *with_time(prompt("bb"), Span(1.3, 2.5))], said=said.append)
    video(model, prompt("a cat\n sits [1.3s: it jumps]"), said=said.append, sections=2)
    video(model, prompt("a [5s: late]"), said=said.append, order="endpoints", sections=3)

    lines = [line for text in said for line in text.splitlines()]
    prompts = dict.fromkeys(line.removeprefix("prompt: ") for line in lines if line.startswith("prompt: "))
    assert list(prompts) == ["the prompt without a time", "the prompt of 1.3s-2.5s", "a cat sits", "it jumps", "a"]
    assert "no section is told 'late' (5s): it lies outside the video's 3.63 s" in lines
    assert "section 1 makes both ends of the video, and is told what belongs to its beginning" in lines


@pytest.mark.parametrize(
    ("order", "layout", "said"),
    [
        ("inverted", "framepack", "a prompt's sections are made before those of the prompt that it follows"),
        ("forward", "f1", "after a prompt has changed, sections still see the start image"),
        ("forward", "vanilla", None),
    ],
)
def test_the_node_says_where_a_change_needs_parts(model, order, layout, said):
    lines: list[str] = []

    video(model, prompt("a [1.3s: b]"), said=lines.append, order=order, layout=layout, sections=2)

    assert ("set the plan's parts" in "\n".join(lines)) == bool(said)
    assert not said or said in "\n".join(lines)


# What is refused


def test_a_prompt_whose_times_all_lie_outside_is_refused_at_once(model, calls):
    with pytest.raises(ValueError, match=r"^negative: no prompt has a time within the video's 3.63 s: the first is for 9s to"):
        video(model, prompt("a"), with_time(prompt("n"), span_of(9, 0)), cfg=2.0)
    assert not calls


def test_a_time_is_given_once():
    with pytest.raises(ValueError, match=r"conditioning has a time already \(1s-2s\); connect what has none"):
        with_time(with_time(prompt("a"), span_of(1, 2)), span_of(3, 4))


@pytest.mark.parametrize(("start", "end", "said"), [(4, 2, "ends at 2 s, but begins at 4 s"), (9999, 0, "start is 9999 s")])
def test_times_that_no_video_has_are_refused(start, end, said):
    with pytest.raises(ValueError, match=said):
        span_of(start, end)


def test_each_section_needs_a_prompt_in_every_step(model, calls):
    part = [[tensor, {**values, "start_percent": 0.5}] for tensor, values in prompt("bb")]

    with pytest.raises(ValueError, match="positive has no prompt for the step at sigma 1, because of a timestep range"):
        video(model, [*prompt("a"), *with_time(part, span_of(1.3, 0))])
    assert not calls


# Other nodes


def test_what_an_entry_had_itself_counts_in_its_time():
    own = [[tensor, {**values, "start_percent": 0.2, "default": True}] for tensor, values in prompt("a")]
    late, early = with_time(own, span_of(1, 0)), with_time(own, span_of(0, 0))
    later = [[tensor, {**values, "start_percent": 0.4}] for tensor, values in late]

    def seen(entries: list) -> list:
        conds = {"positive": [values | {"cross_attn": tensor} for tensor, values in entries]}
        plan = Plan.of(1.2)
        ((found,),) = (conds["positive"] for conds in Told.of(conds, plan.fill(10), plan.length(10), 30.0).conditions.values())
        return [found["start_percent"], found["default"]]

    assert seen(late) == seen(early) == [0.2, True]
    assert seen(later) == [0.4, True], "set after the time was"


@pytest.fixture
def forgetful_log() -> Iterator[None]:
    log.log_once.cache_clear()
    yield
    log.log_once.cache_clear()


@pytest.mark.parametrize(
    ("positive", "used"),
    [
        (prompt("a [0s: bb] [1s: ccc] [2s: dddd]"), [1]),
        (prompt("[1s: bb] [0s: ccc]"), [3]),
        (prompt("[-2s: bb] [-1s: ccc]"), [2]),
        ([*prompt("a"), *with_time(prompt("bb"), span_of(0, 2)), *with_time(prompt("ccc"), span_of(2, 0))], [1]),
        ([*with_time(prompt("bb"), span_of(0, 2)), *with_time(prompt("ccc"), span_of(2, 0))], [2]),
    ],
)
def test_a_sampler_that_knows_no_seconds_says_so_and_uses_one_prompt(model, calls, caplog, forgetful_log, positive, used):
    latent = torch.zeros(1, 16, 9, given.HEIGHT, given.WIDTH)
    with caplog.at_level(logging.WARNING, logger="framepack"):
        comfy.sample.sample(model, latent, 2, 1.0, "euler", "simple", positive, [], latent, seed=1, disable_pbar=True)

    assert calls == [used] * 2
    assert "the prompt is timed, but this sampler knows no seconds" in caplog.text


def test_each_text_is_encoded_once():
    clip = Words()

    encode(clip, parse("a [1s: b] [2s: a] [3s: b]"))

    assert sorted(clip.encoded) == ["a", "b"]


# Resuming


def keys(model, positive: list, **plan) -> Sequence[str]:
    asked = request(model, positive, **plan)
    return section_keys("run", asked.sections, asked.sigmas, section_parts(asked, told_of(asked)))


@pytest.mark.parametrize(("order", "same"), [("forward", 2), ("inverted", 0)])
def test_sections_before_a_changed_prompt_keep_their_names(model, order, same):
    before, after = (keys(model, prompt(text), order=order) for text in (ABC, ABC.replace("ccc", "cc!")))

    assert [one == other for one, other in zip(before, after, strict=True)] == [True] * same + [False] * (3 - same)


def test_times_that_lead_to_the_same_sections_are_the_same_run(model):
    assert keys(model, prompt(ABC)) == keys(model, prompt(ABC.replace("1.3s", "1.4s"))) != keys(model, prompt("a [1.3s: bb]"))


def test_only_timed_prompts_of_plain_content_count_by_their_content(model):
    hooked = [[tensor, {**values, "hooks": comfy.hooks.HookGroup()}] for tensor, values in prompt("a")]
    timed = copy.copy(prompt(ABC))

    assert by_content(request(model, timed).guider)
    assert not by_content(request(model, prompt("a")).guider)
    assert not by_content(request(model, [*timed, *hooked]).guider)
    assert any(TIME in values for _, values in timed), "the caller's conditioning stays as it is"
