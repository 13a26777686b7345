"""Prompts that change with time, through ComfyUI's API: what is seen, what is refused, what is resumed."""

from __future__ import annotations

import pytest
import torch
from support.graph import DEMO_SCENE, DemoGraph, Graph, Outputs, Seen, new_log_lines
from support.stand_ins.prompt import LORA

from experiments.measures.motions import obeys
from experiments.measures.tracks import Track, follow
from scripts.support.server import PromptRefused

STEPS = 12
FIRST, SECOND = slice(0, 37), slice(37, 73)  # frames of the sections, the start image among the first


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


def timeline(graph: Graph, text: str) -> Outputs:
    """Outputs: conditioning, table."""
    return graph.add("FramePack_PromptTimeline", clip=graph.clip, text=text)


def timed(graph: Graph, conditioning: Outputs, start: float, end: float = 0.0) -> Outputs:
    return graph.add("FramePack_SetVideoTime", conditioning=conditioning, start=start, end=end)


def combined(graph: Graph, one: Outputs, other: Outputs) -> Outputs:
    return graph.add("ConditioningCombine", conditioning_1=one, conditioning_2=other)


# What is seen


def motion(server, order: str, text: str) -> Track:
    graph = DemoGraph()
    video = graph.video(server, plan=graph.plan_of(2, order=order), positive=timeline(graph, text), steps=STEPS)
    return follow(video, DEMO_SCENE)[0]


@pytest.mark.slow
def test_the_shape_does_another_thing_from_a_time_on(server):
    track = motion(server, "forward", "a pink circle moves right [1.2s: a pink circle moves up]")

    assert obeys("right", track[FIRST]) and not obeys("up", track[FIRST])
    assert obeys("up", track[SECOND]) and not obeys("right", track[SECOND])


@pytest.mark.slow
def test_in_the_inverted_order_the_end_obeys_its_own_words_too(server):
    """It is made first, as if the shape had moved all the time, so the section before it has to catch up in its last frames."""
    track = motion(server, "inverted", "a pink circle stands still [1.2s: a pink circle moves right]")

    assert obeys("right", track[SECOND]) and not obeys("right", track[FIRST])
    assert abs(track.x[18] - track.x[0]) < 4


def test_one_prompt_for_all_is_the_untimed_video(graph, server):
    words = "The girl dances on the hill"

    found = [graph.latents(server, graph.sampler(positive=timeline(graph, text))) for text in (words, f"[0s: {words}]")]

    assert all(torch.equal(one, graph.latents(server, graph.sampler(resume=False))) for one in found)


def test_stock_nodes_and_the_timeline_make_the_same_video(graph, server):
    plan = graph.plan_of(2, order="forward")
    parts = graph.text("a cat sits"), timed(graph, graph.text("it jumps"), 1.2)
    guided = {"negative": timed(graph, graph.negative, 0.0), "cfg": 2.0}

    words = timeline(graph, "a cat sits [1.2s: it jumps]")

    expected = graph.latents(server, graph.sampler(plan=plan, positive=words, **guided))

    for order in (parts, parts[::-1]):
        found = graph.latents(server, graph.sampler(plan=plan, positive=combined(graph, *order), **guided, resume=False))
        assert torch.equal(found, expected)


def test_a_lora_hook_acts_in_its_time_only(graph, server):
    plan = graph.plan_of(2, order="forward")
    hooks = graph.add("CreateHookLoraModelOnly", lora_name=LORA, strength_model=1.0)
    settings = {"strength": 1.0, "set_cond_area": "default"}
    hooked = graph.add("ConditioningSetProperties", cond_NEW=graph.positive, hooks=hooks, **settings)

    late = graph.latents(server, graph.sampler(plan=plan, positive=combined(graph, graph.positive, timed(graph, hooked, 1.2))))
    plain = graph.latents(server, graph.sampler(plan=plan))

    assert torch.equal(late[:, :, :10], plain[:, :, :10])
    assert (late[:, :, 10:] - plain[:, :, 10:]).norm() > 1e-4 * plain.norm()


def test_the_nodes_say_which_words_count_when(graph, server):
    words = timeline(graph, "a cat sits [1.2s: it jumps] [9s: it sleeps]")
    graph.prompt[words.node]["inputs"]["plan"] = graph.plan_of(2).link
    graph.add("PreviewAny", source=words[1])
    sampler, seen = graph.sampler(plan=graph.plan_of(2), positive=words), Seen()

    entry = server.run(graph.saving(sampler), on_message=seen)

    rows = ["section  seconds    words", "1        1.23-2.43  it jumps", "2        0.03-1.23  a cat sits"]
    expected = "\n".join([*rows, "no section is told 'it sleeps'"])
    (shown,) = (output["text"] for output in entry["outputs"].values() if "text" in output)
    said = "\n".join(seen.texts(sampler))
    assert shown[0].startswith(expected) and "\n".join(seen.texts(words)).startswith(expected)
    assert "no section is told 'it sleeps' (9s): it lies outside the video's 2.43 s" in said
    assert said.index("prompt: it jumps") < said.index("prompt: a cat sits")


def test_a_stock_sampler_uses_one_prompt_and_the_log_says_why(graph, server):
    window = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    settings = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}

    def video(positive: Outputs) -> torch.Tensor:
        conds = {"positive": positive, "negative": graph.negative, "model": graph.model, "latent_image": window}
        return graph.latents(server, graph.add("KSampler", **conds, **settings))

    with new_log_lines(server) as log:
        found = video(timeline(graph, "a cat sits [0s: it yawns] [1.2s: it jumps]"))

    assert torch.equal(found, video(graph.text("a cat sits")))
    assert "the prompt is timed, but this sampler knows no seconds" in log.text


# What is refused when the prompt is queued


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[2s: it jumps", "is not closed; write a ]"),
        ("[4s-2s: it jumps]", "ends at 2 s, but begins at 4 s"),
        ("[1s: a] [1s: b]", "both begin at 1 s"),
        ("[2: it jumps]", "looks like a time, but is none"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused_when_it_is_queued(graph, server, text, said):
    with pytest.raises(PromptRefused) as refused:
        server.run(graph.saving(graph.sampler(positive=timeline(graph, text))))

    assert "FramePack_PromptTimeline: '" in str(refused.value) and said in str(refused.value)


def test_a_time_that_cannot_be_is_refused_when_it_is_queued(graph, server):
    with pytest.raises(PromptRefused, match="FramePack_SetVideoTime: what is to count ends at 2 s, but begins at 4 s"):
        server.run(graph.saving(graph.sampler(positive=timed(graph, graph.positive, 4.0, 2.0))))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda graph: timed(graph, timed(graph, graph.positive, 1.0), 2.0), "FramePack_SetVideoTime: conditioning has a time"),
        (
            lambda graph: timed(graph, graph.positive, 9.0),
            "FramePack_Sampler: positive: no prompt has a time within",
        ),
    ],
)
def test_what_only_the_graph_shows_is_refused_before_the_first_step(graph, server, bad, said):
    assert said in graph.refusal(server, graph.sampler(positive=bad(graph)))


# What is resumed


def resumed(graph: Graph, server, sampler: Outputs) -> str | None:
    seen = Seen()
    graph.latents(server, sampler, on_message=seen)
    lines = "\n".join(seen.texts(sampler)).splitlines()
    return next((line.split()[1] for line in lines if line.startswith("resumed: ")), None)


@pytest.mark.parametrize(
    ("order", "before", "after", "kept"),
    [
        ("forward", "a [1.2s: b] [2.4s: c]", "a [1.2s: b] [2.4s: d]", "2"),
        ("forward", "a [1.2s: b] [2.4s: c]", "a [1.2s: d] [2.4s: c]", "1"),
        ("inverted", "a [1.2s: b] [2.4s: e]", "f [1.2s: b] [2.4s: e]", "2"),
        ("endpoints", "a [1.2s: g]", "a [1.2s: h]", "1"),
    ],
)
def test_sections_whose_prompt_is_the_same_are_not_made_again(graph, server, order, before, after, kept):
    settings = {"plan": graph.plan_of(3, order=order), "seed": 800}
    graph.latents(server, graph.sampler(positive=timeline(graph, before), **settings))

    changed = graph.sampler(positive=timeline(graph, after), **settings)

    assert resumed(graph, server, changed) == kept
    again = graph.sampler(positive=timeline(graph, after), **settings, resume=False)
    assert torch.equal(graph.latents(server, changed), graph.latents(server, again))


def test_guiders_of_stock_conditioning_resume_too(graph, server):
    plan = graph.plan_of(2, order="forward")

    def sampler(late: str) -> Outputs:
        conditioning = combined(graph, graph.positive, timed(graph, graph.text(late), 1.2))
        guider = graph.add("BasicGuider", model=graph.model, conditioning=conditioning)
        return graph.custom_sampler(guider=guider, plan=plan, seed=801)

    graph.latents(server, sampler("it jumps"))

    assert resumed(graph, server, sampler("it sleeps")) == "1"
