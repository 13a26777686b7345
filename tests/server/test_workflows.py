"""Example workflows and every way of sampling, from the prompt to the files on disk."""

import json
import math
import re

import av
import numpy
import pytest
import torch
from PIL import Image
from support.canvas import demo_at_once
from support.example_video import FRAMES
from support.graph import Graph, Outputs, Seen
from support.stand_ins.prompt import FORWARD, of_kind, shortened, with_stand_ins

from scripts.support.environment import ROOT
from scripts.support.server import Prompt, Server
from scripts.support.workflow import to_prompt

WORKFLOWS = sorted((ROOT / "example_workflows").glob("FramePack *.json"))
SECTIONS, STEPS = 2, 2
FPS = 30
SMALL = {"steps": STEPS, "base_resolution": 96, "width": 96, "height": 96}


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


@pytest.fixture(scope="module", params=demo_at_once(WORKFLOWS))
def run(request, server: Server, start_image) -> tuple[Prompt, Seen, list]:
    """An example workflow, small and on stand-in models: its prompt, its messages and the files it leaves."""
    workflow = json.loads(request.param.read_text(encoding="utf-8"))
    prompt = shortened(with_stand_ins(to_prompt(workflow, server.object_info())), SECTIONS)
    for node in prompt.values():
        node["inputs"].update({name: value for name, value in SMALL.items() if name in node["inputs"]})
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = start_image
        if node["class_type"] == "FramePack_Sampler":  # nothing of another workflow's run is used again
            node["inputs"]["seed"] += 1000 * WORKFLOWS.index(request.param)
    seen = Seen()
    entry = server.run(prompt, on_message=seen)
    return prompt, seen, server.output_files(entry)


def test_there_are_workflows_for_both_checkpoints():
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)

    assert "FramePackI2V_HY" in text and "FramePack_F1_I2V_HY" in text


def test_a_workflow_leaves_videos_of_the_planned_length_and_size(run):
    videos = [file for file in run[2] if file.suffix == ".mp4"]

    assert len(videos) == len(samplers_of(run[0]))
    for video in videos:
        with av.open(video) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert len(frames) == frames_of(run[0])
        assert {frame.shape for frame in frames} == {(96, 96, 3)}
        assert stream.average_rate == FPS
        moves = numpy.diff(numpy.stack(frames).astype(int), axis=0).any(axis=(1, 2, 3))
        assert moves.mean() > 0.9, "the video stands still"


def test_a_workflow_draws_its_plan_if_it_has_a_node_for_that(run):
    """The other picture, if there is one, is the demo's start image."""
    pictures = [Image.open(file).convert("RGB") for file in run[2] if file.suffix == ".png"]

    drawings = [picture for picture in pictures if picture.width >= 400]
    assert len(drawings) == len(of_kind(run[0], "FramePack_DrawPlan"))
    assert all(len(drawing.getcolors(1 << 24)) > 8 for drawing in drawings)


def test_one_progress_bar_runs_over_all_steps_of_all_sections(run):
    """ComfyUI drops updates that follow too closely, but the first and the last always come."""
    prompt, seen, _ = run

    for sampler, sections in samplers_of(prompt).items():
        total = sections * STEPS
        steps = [step for step, _ in seen.steps(sampler)]
        assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] == total
        assert {most for _, most in seen.steps(sampler)} == {total}


def test_the_sampler_says_section_step_and_remaining_time(run):
    prompt, seen, _ = run

    for sampler, count in samplers_of(prompt).items():
        *texts, last = seen.texts(sampler)
        frames = frames_of(prompt)
        assert re.fullmatch(rf"{frames} of {frames} frames done in \d+ s", last)
        said = [re.search(r"section (\d) of (\d).*step (\d) of (\d)", text).groups() for text in texts]
        expected = [(section, step) for section in range(1, count + 1) for step in range(STEPS + 1)]
        assert [(int(section), int(step)) for section, _, step, _ in said] == expected
        assert {(int(sections), int(steps)) for _, sections, _, steps in said} == {(count, STEPS)}
        assert all(re.search(r"\d+ s left", text) for text in texts[1:])
        assert "trained" not in "".join(texts), "an example workflow warns"


def loop_of(prompt: Prompt) -> int:
    (plan,) = of_kind(prompt, "FramePack_Plan").values()
    return plan["inputs"]["loop"]


def frames_of(prompt: Prompt) -> int:
    """A loop has no start image."""
    latent_frames = 9 * (SECTIONS + loop_of(prompt)) + given_frames(prompt)
    return 4 * latent_frames - (4 if loop_of(prompt) else 3)


def given_frames(prompt: Prompt) -> int:
    """Latent frames that are not made: of the start image, or of what is placed."""
    if placed := of_kind(prompt, "FramePack_Place"):
        return len(range(0, FRAMES, 4)) if of_kind(prompt, "LoadVideo") else len(placed)
    return len(of_kind(prompt, "FramePack_EncodeImage"))


def samplers_of(prompt: Prompt) -> dict[Outputs, int]:
    """How many sections each sampler makes: after FramePack Redo, one."""
    redos = of_kind(prompt, "FramePack_Redo")
    return {
        Outputs(name): 1 if node["inputs"]["plan"][0] in redos else SECTIONS + loop_of(prompt)
        for name, node in of_kind(prompt, "FramePack_Sampler").items()
    }


def test_decode_gives_four_pixel_frames_for_a_latent_frame(graph, server):
    images = graph.add("FramePack_Decode", latent=graph.sampler(), vae=graph.vae)
    graph.add("PreviewImage", images=images)

    files = server.output_files(server.run(graph.prompt))

    assert len(files) == 4 * 10 - 3
    assert {Image.open(file).size for file in files} == {(64, 64)}


def test_the_start_image_is_the_first_frame(graph, server):
    start, video = graph.latents(server, graph.start), graph.latents(server, graph.sampler())

    assert video.shape == (1, 16, 10, 8, 8)
    assert torch.equal(video[:, :, :1], start)


@pytest.mark.parametrize("guidance", [None, 3.0])
@pytest.mark.parametrize("guider", ["BasicGuider", "CFGGuider"])
def test_stock_guiders_give_what_the_sampler_gives(graph, server, guider, guidance):
    """The distilled guidance comes from the conditioning, or is 10 if there is none."""
    plan = graph.plan_of(2)
    positive = graph.positive
    if guidance:
        positive = graph.add("FluxGuidance", conditioning=positive, guidance=guidance)
    conds = {"conditioning": positive}
    if guider == "CFGGuider":
        conds = {"positive": positive, "negative": graph.negative, "cfg": 1.0}
    custom = graph.custom_sampler(plan=plan, guider=graph.add(guider, model=graph.model, **conds))

    expected = graph.latents(server, graph.sampler(plan=plan, guidance=guidance or 10.0))

    assert torch.equal(graph.latents(server, custom), expected)


@pytest.mark.parametrize("guider", ["DualCFGGuider", "PerpNegGuider"])
def test_guiders_with_more_conditions_show_the_context_to_each(graph, server, guider):
    """With two equal conditions, and with a scale of 0, they are equivalent to plain CFG."""
    conds = graph.positive, graph.negative
    positive, negative = (graph.add("FluxGuidance", conditioning=cond, guidance=10.0) for cond in conds)
    settings = {
        "DualCFGGuider": {"cond1": positive, "cond2": positive, "negative": negative,
                          "cfg_conds": 5.0, "cfg_cond2_negative": 2.0, "style": "regular"},
        "PerpNegGuider": {"positive": positive, "negative": positive, "empty_conditioning": negative,
                          "cfg": 2.0, "neg_scale": 0.0},
    }  # fmt: skip
    made = graph.add(guider, model=graph.model, **settings[guider])
    plan = graph.plan_of(2)

    found = graph.latents(server, graph.custom_sampler(guider=made, plan=plan))
    expected = graph.latents(server, graph.sampler(negative=graph.negative, cfg=2.0, plan=plan))

    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_a_guider_can_be_used_again_by_other_nodes(graph, server):
    """The sampler leaves it as it was: no context of a section stays in its conditions."""
    guider = graph.add("BasicGuider", model=graph.model, conditioning=graph.positive)
    window = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    expected = graph.latents(server, on_one_window(graph, guider, window))
    graph.latents(server, graph.custom_sampler(guider=guider, seed=2))

    # a latent that ComfyUI has not seen makes it sample again, on the guider that it keeps
    again = graph.latents(server, on_one_window(graph, guider, graph.add("RepeatLatentBatch", samples=window, amount=1)))

    assert torch.equal(again, expected)


def test_a_batch_of_start_images_gives_a_batch_of_videos(graph, server):
    both = graph.add("LatentBatch", samples1=graph.start, samples2=end_image(graph))

    videos = graph.latents(server, graph.sampler(start_latent=both, negative=graph.negative, cfg=2.0, plan=graph.plan_of(2)))

    assert videos.shape == (2, 16, 19, 8, 8)
    assert torch.equal(videos[:, :, :1], graph.latents(server, both))
    assert (videos[0] - videos[1]).abs().mean() > 0.1


def test_a_stock_guider_does_real_cfg(graph, server):
    conds = {
        name: graph.add("FluxGuidance", conditioning=cond, guidance=10.0)
        for name, cond in (("positive", graph.positive), ("negative", graph.negative))
    }
    custom = graph.custom_sampler(guider=graph.add("CFGGuider", model=graph.model, cfg=2.0, **conds))

    expected = graph.latents(server, graph.sampler(negative=graph.negative, cfg=2.0))

    assert torch.equal(graph.latents(server, custom), expected)


@pytest.mark.parametrize(
    ("order", "with_end"),
    [("inverted", False), ("inverted", True), ("forward", False), ("endpoints", False), ("endpoints", True)],
)
def test_scheduler_and_unipc_are_those_of_the_sampler_in_every_order(graph, server, order, with_end):
    plan = graph.plan_of(3, order=order)
    end = {"end_latent": end_image(graph)} if with_end else {}

    expected = graph.latents(server, graph.sampler(plan=plan, sampler="unipc_bh2", shift=3.0, **end))
    custom = graph.custom_sampler(
        plan=plan,
        sampler=graph.add("FramePack_UniPC", variant="bh2"),
        sigmas=graph.add("FramePack_Scheduler", steps=2, shift=3.0, latent=graph.start, window=9),
        **end,
    )

    assert torch.equal(graph.latents(server, custom), expected)


def test_an_end_image_is_the_last_frame_in_the_endpoints_order(graph, server):
    plan, end = graph.plan_of(2, order="endpoints"), end_image(graph)

    video = graph.latents(server, graph.sampler(plan=plan, end_latent=end))

    assert video.shape[2] == 2 + 2 * 9
    assert torch.equal(video[:, :, -1:], graph.latents(server, end))
    assert graph.latents(server, graph.sampler(plan=plan)).shape[2] == 1 + 2 * 9


def test_an_end_image_steers_the_inverted_order_and_is_not_in_the_video(graph, server):
    plan, end = graph.plan_of(2), end_image(graph)

    steered = graph.latents(server, graph.sampler(plan=plan, end_latent=end))
    free = graph.latents(server, graph.sampler(plan=plan))

    assert steered.shape == free.shape
    assert not torch.equal(steered[:, :, -9:], free[:, :, -9:])
    assert not torch.equal(steered[:, :, -1:], graph.latents(server, end))


def end_image(graph: Graph) -> Outputs:
    return graph.encode(graph.add("ImageInvert", image=graph.image))


def test_the_model_s_own_solver_and_number_of_steps_are_those_that_are_chosen_by_name(graph, server):
    chosen = graph.latents(server, graph.sampler(sampler="unipc_bh1", steps=25))
    own = graph.latents(server, graph.sampler(sampler="auto", steps=0, resume=False))

    assert torch.equal(own, chosen)


def test_stock_samplers_run(graph, server):
    names = ["unipc_bh1", "unipc_bh2", "euler", "euler_ancestral", "dpmpp_2m"]

    videos = [graph.latents(server, graph.sampler(sampler=name, steps=3)) for name in names]

    assert all(video.isfinite().all() and video.shape == (1, 16, 10, 8, 8) for video in videos)
    assert all(not torch.equal(a, b) for i, a in enumerate(videos) for b in videos[:i])


def test_a_sampler_that_takes_more_steps_than_sigmas_stays_within_the_bar(graph, server):
    sampler, seen = graph.sampler(sampler="dpm_adaptive", plan=graph.plan_of(2)), Seen()

    graph.latents(server, sampler, on_message=seen)

    assert all(value <= most == 4 for value, most in seen.steps(sampler))
    assert not [text for text in seen.texts(sampler) if re.search(r"step ([3-9]|\d\d) of 2|-\d", text)]


def test_a_sampler_that_calls_back_less_often_fills_the_bar(graph, server):
    sampler, seen = graph.sampler(sampler="dpm_fast", steps=4, plan=graph.plan_of(2)), Seen()

    graph.latents(server, sampler, on_message=seen)

    assert seen.steps(sampler)[-1] == (8, 8)


def test_unipc_and_the_schedule_serve_stock_sampling_nodes(graph, server):
    """Without sections: FramePack's transformer on one window, no context."""
    guider = graph.add("BasicGuider", model=graph.model, conditioning=graph.positive)
    window = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)

    video = graph.latents(server, on_one_window(graph, guider, window))

    assert video.shape == (1, 16, 9, 8, 8) and video.isfinite().all() and video.std() > 0.1


def on_one_window(graph: Graph, guider: Outputs, window: Outputs) -> Outputs:
    return graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=1),
        guider=guider,
        sampler=graph.add("FramePack_UniPC", variant="bh1"),
        sigmas=graph.add("FramePack_Scheduler", steps=2, shift=0.0, latent=graph.start, window=9),
        latent_image=window,
    )


@pytest.mark.parametrize("setting", [{"shift": 3.0}, {"guidance": 5.0}, {"steps": 3}, {"clip_vision_output": None}])
def test_every_setting_counts(graph, server, setting):
    changed, plain = graph.latents(server, graph.sampler(**setting)), graph.latents(server, graph.sampler())

    assert not math.isclose((changed - plain).abs().max().item(), 0, abs_tol=1e-4)


def test_an_f1_checkpoint_with_an_inverted_plan_runs_with_a_warning(graph, server):
    graph.model = graph.add("FramePack_LoadModel", model_name=FORWARD, weight_dtype="default")
    sampler, seen = graph.sampler(), Seen()

    graph.latents(server, sampler, on_message=seen)

    warning = f"{FORWARD} looks like F1, which was trained for the forward order, but the plan is inverted"
    assert all(warning in text for text in seen.texts(sampler))
    assert warning in server.log.read_text(encoding="utf-8")


def test_an_inverted_checkpoint_with_a_forward_plan_runs_with_a_warning(graph, server):
    sampler, seen = graph.sampler(plan=graph.plan_of(order="forward")), Seen()

    graph.latents(server, sampler, on_message=seen)

    assert all("was trained for the inverted order, but the plan is forward" in text for text in seen.texts(sampler))


def test_an_untrained_layout_runs_with_a_warning(graph, server):
    sampler, seen = graph.sampler(plan=graph.plan_of(layout="geometric")), Seen()

    graph.latents(server, sampler, on_message=seen)

    assert all("is untrained on this checkpoint" in text for text in seen.texts(sampler))


def test_a_plan_is_told_as_a_table(graph, server):
    graph.add("PreviewAny", source=graph.plan_of(2)[1])

    (shown,) = server.run(graph.prompt)["outputs"].values()

    assert "19 latent frames = 73 frames = 2.43 s at 30 fps" in shown["text"][0]
