"""What a plan will make, read from a prompt that has not run."""

from typing import Any

import pytest

from framepack_core.foreseen import Foreseen, still, with_start_image
from framepack_core.foretold import told_to
from framepack_core.made import Made
from framepack_core.placing import Arrangement, Frames
from framepack_core.plan import Plan


def prompt(plan: dict[str, Any], sampler: dict[str, Any] | None = None, **others: tuple[str, dict[str, Any]]) -> dict:
    nodes = {"1": ("FramePack_Plan", plan)}
    if sampler is not None:
        nodes["2"] = ("FramePack_Sampler", {"plan": ["1", 0], **sampler})
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in (nodes | others).items()}


def image(kind: str = "LoadImage") -> tuple[str, dict[str, Any]]:
    return kind, {"image": "example.png"}


def test_a_plan_by_itself_is_drawn_with_a_start_image():
    values = {"seconds": 2.4, "order": "endpoints", "window": 4, "layout": "auto", "fps": 24, "paddings": "exact", "loop": 0}

    assert Foreseen.of(prompt(values), "1") == Foreseen(Plan.of(2.4, "endpoints", 4, "auto", 24, "exact"))


def test_parts_are_read_and_wrong_ones_are_told():
    assert Foreseen.of(prompt({"seconds": 4.8, "parts": "2.4"}), "1").plan == Plan.of(4.8).in_parts([2.4])
    with pytest.raises(ValueError, match="parts has 1 s after 2 s"):
        Foreseen.of(prompt({"seconds": 4.8, "parts": "2, 1"}), "1")


def told(text: str, parts: str) -> Plan:
    """The plan of a sampler with a FramePack_PromptTimeline."""
    given = {"start_latent": ["7", 0], "positive": ["words", 0]}
    graph = prompt({"seconds": 4.8, "parts": parts}, given, words=("FramePack_PromptTimeline", {"text": text}))
    return Foreseen.of(graph, "1").told(told_to(graph, "2")).plan


def test_parts_of_prompts_are_those_of_the_sampler_behind():
    assert told("a cat sits [2.5s: it jumps]", "prompts").fill(37) == Plan.of(4.8).in_parts([2.4]).fill(37)
    assert told("a cat sits", "prompts").fill(37) == told("a cat sits [2.5s: it jumps]", "").fill(37) == Plan.of(4.8).fill(37)


def test_a_new_anchor_is_read():
    values = {"seconds": 4.8, "order": "forward", "reanchor": True}

    assert Foreseen.of(prompt(values), "1").plan == Plan.of(4.8, "forward", reanchored=True)


def test_a_custom_layout_is_read_and_a_missing_one_is_told():
    custom = {"layout": "custom", "custom_layout": " f1k1_x_g9_f1k1_td "}

    assert str(Foreseen.of(prompt(custom), "1").plan.layout).startswith("f1k1_x_g9_f1k1")
    with pytest.raises(ValueError, match="custom_layout is empty"):
        Foreseen.of(prompt({"layout": "custom", "custom_layout": ""}), "1")


@pytest.mark.parametrize(
    ("order", "given", "known"),
    [
        ("inverted", {"start_latent": ["7", 0]}, {0}),
        ("inverted", {"start_latent": ["7", 0], "end_latent": ["8", 0]}, {0}),
        ("endpoints", {"start_latent": ["7", 0], "end_latent": ["8", 0]}, {0, 19}),
        ("inverted", {}, set()),
    ],
    ids=["start", "end beyond the video", "both ends", "text to video"],
)
def test_what_the_sampler_is_given_is_known(order, given, known):
    assert Foreseen.of(prompt({"seconds": 2.4, "order": order}, given), "1").known == known


@pytest.mark.parametrize("name", ["Helios-Distilled/transformer/", "helios_base_fp8.safetensors"])
def test_a_video_of_helios_is_drawn_in_chunks_of_33_frames(name):
    """Its model is known by the file's name, behind whatever changes the model."""
    foreseen = Foreseen.of(
        prompt(
            {"seconds": 60, "order": "forward", "fps": 24},
            {"model": ["3", 0]},
            **{"3": ("FramePack_LoadLora", {"model": ["4", 0]}), "4": ("FramePack_LoadModel", {"model_name": name})},
        ),
        "1",
    )

    assert foreseen.plan.apart and foreseen.plan.sections == 44
    assert foreseen.plan.length(44 * 9).frames == 44 * 33


@pytest.mark.parametrize("sampler", [None, {"model": ["5", 0]}])
def test_the_model_of_the_plan_itself_comes_first(sampler):
    models = {
        name: ("FramePack_LoadModel", {"model_name": file}) for name, file in (("4", "Helios-Mid"), ("5", "FramePackI2V"))
    }
    plan = {"seconds": 60, "order": "forward", "fps": 24, "model": ["4", 0]}

    assert Foreseen.of(prompt(plan, sampler, **models), "1").plan.sections == 44
    with pytest.raises(ValueError, match="order is inverted, but Helios Mid"):
        Foreseen.of(prompt({**plan, "order": "inverted"}, sampler, **models), "1")


def test_a_chain_of_placed_frames_is_where_the_sampler_will_put_it():
    """A clip, whose length is not known before it is loaded, is as long as what is used of it at most."""
    foreseen = Foreseen.of(
        prompt(
            {"seconds": 3.6},
            {"frames": ["4", 0]},
            **{
                "3": ("FramePack_Place", {"images": ["6", 0], "at": "start", "seconds": 0.0, "use": "fixed"}),
                "4": (
                    "FramePack_Place",
                    {"images": ["5", 0], "at": "time", "seconds": 4.0, "use": "guide", "frames": ["3", 0]},
                ),
                "5": image(),
                "6": ("GetVideoComponents", {"video": ["7", 0]}),
            },
        ),
        "1",
    )

    assert foreseen.known == set(range(19))
    assert foreseen.guides == ((30, 31),)


STILL, SOME = {"still": image()}, {"some": ("RepeatImageBatch", {"image": ["still", 0], "amount": 8})}
VIDEO = {"video": ("GetVideoComponents", {"video": ["file", 0]}), "file": ("LoadVideo", {"file": "example.mp4"})}


@pytest.mark.parametrize(
    ("node", "others", "known", "is_open"),
    [
        (("ImageScale", {"image": ["still", 0]}), STILL, 1, False),
        (("RepeatImageBatch", {"image": ["still", 0], "amount": 3}), STILL, 2, False),
        (("ImageBatch", {"image1": ["still", 0], "image2": ["some", 0]}), {**STILL, **SOME}, 5, False),
        (("ImageScale", {"image": ["video", 0]}), VIDEO, 19, True),
        (("ImageFromBatch", {"image": ["video", 0], "batch_index": 0, "length": 1}), VIDEO, 1, False),
        (("ImageFromBatch", {"image": ["video", 0], "batch_index": 0, "length": 9}), VIDEO, 5, False),
        (("VHS_LoadVideo", {"video": "a.mp4"}), {}, 19, True),
        (("Another_Node", {}), {}, 1, True),
    ],
    ids=["changed", "repeated", "batched", "a changed video", "one of a video", "some of a video", "another pack's", "unknown"],
)  # fmt: skip
def test_images_are_counted_as_far_as_nodes_tell(node, others, known, is_open):
    """Placed at 15 frames a second in a video of 30, so that each counts twice."""
    place = ("FramePack_Place", {"images": ["node", 0], "at": "start", "fps": 15.0})
    foreseen = Foreseen.of(prompt({"seconds": 1.2}, {"frames": ["place", 0]}, place=place, node=node, **others), "1")

    assert (len(foreseen.known), foreseen.open) == (known, is_open)


def test_a_batch_at_several_times_is_a_still_at_each():
    place = ("FramePack_Place", {"images": ["5", 0], "times": "start, 1.4, end"})

    assert Foreseen.of(prompt({"seconds": 2.4}, {"frames": ["3", 0]}, **{"3": place, "5": image()}), "1").known == {0, 10, 20}


@pytest.mark.parametrize(
    ("frames", "known"),
    [
        (Frames(), {0}),
        (Frames((still("time", seconds=1.4),)), {0, 10}),
        (Frames((still("start"), still("end"))), {0, 19}),
        (Frames((still("start", "guide"),)), {0}),
        (Frames((still("time", seconds=1.2),), made=Made(Plan.of(2.4), (0,), 19)), {9}),
    ],
    ids=["nothing else", "a keyframe", "a start of their own", "a guide", "the rest of a finished video"],
)
def test_a_start_image_is_given_with_frames_that_have_no_start(frames, known):
    assert Arrangement.of(Plan.of(2.4), with_start_image(frames)).known == known


def test_a_value_may_come_from_a_primitive_but_not_from_what_has_not_run():
    assert Foreseen.of(prompt({"seconds": ["5", 0]}, **{"5": ("PrimitiveFloat", {"value": 2.4})}), "1").plan.sections == 2
    with pytest.raises(ValueError, match=r"^seconds comes from another node and is known when the graph runs$"):
        Foreseen.of(prompt({"seconds": ["5", 0]}, **{"5": ("GetVideoComponents", {"video": ["6", 0]})}), "1")


def test_what_has_no_place_is_told_in_the_sampler_s_words():
    late = ("FramePack_Place", {"images": ["5", 0], "at": "time", "seconds": 9.0, "use": "fixed"})

    with pytest.raises(ValueError, match=r"placed at 9\.00 s, but the video has"):
        Foreseen.of(prompt({"seconds": 2.4}, {"frames": ["3", 0]}, **{"3": late, "5": image()}), "1")


def helios(plan: dict[str, Any], given: dict[str, Any], **others: tuple[str, dict[str, Any]]) -> Foreseen:
    loader = ("FramePack_LoadModel", {"model_name": "Helios-Distilled.safetensors"})
    lora = ("FramePack_LoadLora", {"model": ["8", 0], "lora_name": "x.safetensors"})
    nodes = {"8": loader, "9": lora} | others
    return Foreseen.of(prompt({"fps": 24, "order": "forward", **plan}, {"model": ["9", 0], **given}, **nodes), "1")


@pytest.mark.parametrize(
    ("given", "hidden"), [({}, 0), ({"start_latent": ["7", 0]}, 1), ({"frames": ["5", 0]}, 27)], ids=["text", "image", "clip"]
)
def test_with_a_helios_file_sections_are_clips_of_their_own_after_what_is_given(given, hidden):
    clip = {"5": ("FramePack_Place", {"images": ["6", 0]}), "6": ("GetVideoComponents", {})}
    foreseen = helios({"seconds": 3.0}, given, **clip)

    plan = foreseen.plan
    assert plan.apart
    assert foreseen.known == set(range(hidden))
    assert plan.length(hidden + plan.generated, hidden).frames == 33 * plan.sections


def test_a_plan_that_helios_cannot_make_is_told_before_it_runs():
    with pytest.raises(
        ValueError, match="the plan's order is inverted, but Helios Distilled makes videos in the order forward only"
    ):
        helios({"order": "inverted"}, {})
