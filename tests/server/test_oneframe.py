"""A single picture with the demo's models, from the prompt to the file."""

import re
from typing import Any

import numpy
import pytest
import torch
from support.graph import CancelAt, DemoGraph, Graph, Outputs, Seen

from framepack_core.oneframe import HISTORIES
from scripts.support.server import PromptRefused, RunFailed, Server

SIZE = 128
INDICES = (1, 3, 5)  # of pictures that the demo model makes well


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


def place(graph: Graph, images: Outputs, **changes: Any) -> Outputs:
    inputs = {"images": images, "vae": graph.vae, "at": "start", "seconds": 0.0, "use": "fixed", "clip_vision": graph.vision}
    return graph.add("FramePack_Place", **{**inputs, "base_resolution": graph.size, **changes})


def picture(graph: Graph, frames: Outputs | None, **changes: Any) -> Outputs:
    inputs = {
        "model": graph.model,
        "positive": graph.positive,
        "frames": frames,
        "target_index": 9,
        "history": "full",
        "seed": 1,
        "steps": 4,
        "cfg": 1.0,
        "guidance": 10.0,
        "shift": 0.0,
        "sampler": "auto",
    } | changes
    return graph.add("FramePack_OneFrame", **{name: value for name, value in inputs.items() if value is not None})


def other(graph: DemoGraph) -> Outputs:
    return graph.add("FramePack_DemoImage", seed=5)


def half_mask(graph: Graph, size: int = SIZE) -> Outputs:
    """White on the left."""
    black, white = (graph.add("SolidMask", value=value, width=size, height=size) for value in (0.0, 1.0))
    part = graph.add("CropMask", mask=white, x=0, y=0, width=size // 2, height=size)
    return graph.add("MaskComposite", destination=black, source=part, x=0, y=0, operation="add")


def decoded(graph: DemoGraph, server: Server, latent: Outputs) -> numpy.ndarray:
    """`H W 3`."""
    return graph.frames(server, graph.add("FramePack_Decode", latent=latent, vae=graph.vae))[0]


def pink(frame: numpy.ndarray) -> numpy.ndarray:
    """Where the demo's pink shapes are: `H W`."""
    red, green, _ = frame.astype(int).transpose(2, 0, 1)
    return red > green + 60


def column(frame: numpy.ndarray) -> float:
    """The middle of what is pink."""
    return float(pink(frame).nonzero()[1].mean())


@pytest.mark.parametrize("decoder", ["FramePack_Decode", "VAEDecode"])
def test_a_picture_of_the_still_s_size_is_saved(graph, server, decoder):
    latent = picture(graph, place(graph, graph.image))
    images = graph.add(decoder, vae=graph.vae, **{"latent" if decoder == "FramePack_Decode" else "samples": latent})

    found = graph.frames(server, images)
    latents = graph.latents(server, latent)

    assert found.shape == (1, SIZE, SIZE, 3)
    assert found.std() > 10
    assert latents.shape == (1, 16, 1, SIZE // 8, SIZE // 8)
    assert latents.isfinite().all()


@pytest.mark.slow
def test_the_further_the_index_is_the_further_the_shape_has_moved(graph, server):
    """A pink circle moves left, and is about where the video has it then."""
    frames = place(graph, graph.image)
    pictures = [picture(graph, frames, target_index=index, steps=8) for index in INDICES]
    video = graph.video(server, steps=8)

    columns = [column(decoded(graph, server, latent)) for latent in pictures]

    assert columns == sorted(columns, reverse=True) and columns[-1] < columns[0] - 10
    assert columns == pytest.approx([column(video[4 * index - 2]) for index in INDICES], abs=6)


def test_a_still_at_the_end_shows_in_the_picture_before_it_unless_it_is_masked(graph, server):
    """The other scene's pink triangle is on the right, at the top; the mask is white on the left."""
    found = []
    for part in ({}, {"mask": half_mask(graph)}):
        frames = place(graph, other(graph), at="end", frames=place(graph, graph.image), **part)
        found.append(pink(decoded(graph, server, picture(graph, frames, history="none", steps=8)))[:48].sum())

    seen, masked = found
    assert seen > 100 and masked < 20


@pytest.mark.slow
def test_everything_that_a_picture_is_made_from_changes_it(graph, server):
    start, reference = place(graph, graph.image), place(graph, other(graph), at="end")
    both = place(graph, other(graph), at="end", frames=start)
    ways = {
        **{f"history {history}": picture(graph, start, history=history) for history in HISTORIES},
        "target_index 8": picture(graph, start, target_index=8),
        "the end alone": picture(graph, reference),
        "start and end": picture(graph, both),
        "in each other's place": picture(graph, both, control_index="10;0"),
        "the end masked": picture(graph, place(graph, other(graph), at="end", frames=start, mask=half_mask(graph))),
        "the end's embedding": picture(graph, start, clip_vision_output=graph.encode(other(graph))[1]),
        "another seed": picture(graph, start, seed=2),
    }

    found = {name: graph.latents(server, latent) for name, latent in ways.items()}

    assert all(latents.isfinite().all() for latents in found.values())
    equal = [(a, b) for a in found for b in found if a < b and torch.equal(found[a], found[b])]
    assert not equal


def test_what_is_the_same_picture(graph, server):
    """Neither use nor a plan's rate matters to a still, auto is the official sampler, a white mask hides nothing, and the
    numbers of control_index are the places that they name."""
    frames = place(graph, other(graph), at="end", frames=place(graph, graph.image))
    white = graph.add("SolidMask", value=1.0, width=SIZE, height=SIZE)
    guides = place(graph, other(graph), at="end", use="guide", frames=place(graph, graph.image, use="guide", mask=white))

    expected = graph.latents(server, picture(graph, frames))
    same = [
        picture(graph, guides),
        picture(graph, frames, sampler="unipc_bh1"),
        picture(graph, frames, control_index="0;10"),
        picture(graph, place(graph, other(graph), at="time", seconds=1.3, frames=place(graph, graph.image))),
    ]

    for latent in same:
        assert torch.equal(graph.latents(server, latent), expected)


def test_what_a_mask_hides_matters_far_less(graph, server):
    """Two references that differ only on their right, once seen whole and once with the right masked."""
    mask, found = half_mask(graph), []
    hidden = graph.add("InvertMask", mask=mask)
    for colour in (0xFFFFFF, 0):
        plain = graph.add("EmptyImage", width=SIZE, height=SIZE, batch_size=1, color=colour)
        layers = {"destination": other(graph), "source": plain, "mask": hidden, "x": 0, "y": 0, "resize_source": False}
        reference = {"images": graph.add("ImageCompositeMasked", **layers), "at": "end", "clip_vision": None}
        for part in ({}, {"mask": mask}):
            frames = place(graph, frames=place(graph, graph.image), **reference, **part)
            found.append(graph.latents(server, picture(graph, frames, history="none")))

    white, white_masked, black, black_masked = found
    assert (white_masked - black_masked).norm() < 0.3 * (white - black).norm()


def test_the_node_says_where_everything_is_and_how_far_it_is(graph, server):
    seen = Seen()
    latent = picture(graph, place(graph, other(graph), at="end", frames=place(graph, graph.image)), history="none", seed=99)

    graph.latents(server, latent, on_message=seen)

    text = "\n".join(seen.texts(latent))
    assert "time index of the picture: 9, of what it sees: 0, 10 (history: none)" in text
    assert re.search("step 4 of 4", text)
    assert seen.steps(latent)[-1] == (4, 4)


def test_a_picture_can_be_cancelled(graph, server):
    latent = picture(graph, place(graph, graph.image), steps=200, seed=98)

    with pytest.raises(RunFailed) as failure:
        graph.latents(server, latent, on_message=CancelAt(server, latent, "step 2 of 200"))

    assert failure.value.interrupted


def test_the_picture_can_start_a_video(graph, server):
    latent = picture(graph, place(graph, graph.image))

    video = graph.latents(server, graph.sampler(start_latent=latent))

    assert torch.equal(video[:, :, :1], graph.latents(server, latent))


def test_a_guide_s_mask_counts_in_a_video_too(graph, server):
    guide = {"at": "time", "seconds": 1.0, "use": "guide", "clip_vision": None}
    seen, masked = place(graph, other(graph), **guide), place(graph, other(graph), mask=half_mask(graph), **guide)

    whole, part = (graph.latents(server, graph.sampler(frames=frames)) for frames in (seen, masked))

    assert not torch.equal(whole, part)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: {"frames": None}, "FramePack_OneFrame: nothing is placed, but a picture is made from a still"),
        (lambda g: {"control_index": "0;10"}, "FramePack_OneFrame: control_index is '0;10', but 1 still is placed"),
        (lambda g: {"control_index": "400"}, "FramePack_OneFrame: a still's index is 400; choose 0 to 100"),
        (
            lambda g: {"frames": place(g, g.add("RepeatImageBatch", image=g.image, amount=5), at="end")},
            "FramePack_OneFrame: what is placed at the end is a clip",
        ),
        (
            lambda g: {"frames": place(g, g.add("RepeatImageBatch", image=g.image, amount=2), use="guide")},
            "FramePack_OneFrame: what is placed at the start is a clip",
        ),
        (
            lambda g: {"frames": g.add("FramePack_Redo", latent=g.sampler(plan=g.plan), plan=g.plan, sections="1")[1]},
            "FramePack_OneFrame: frames are the rest of a finished video",
        ),
        (lambda g: {"cfg": 2.0}, "FramePack_OneFrame: cfg is 2 but negative is not connected"),
        (lambda g: {"shift": 0.001}, "FramePack_OneFrame: shift is 0.001"),
        (
            lambda g: {"frames": place(g, g.image, mask=half_mask(g, 64))},
            "FramePack_Place: mask is 64x64, but images are 128x128; give one mask of their size",
        ),
        (
            lambda g: {"frames": place(g, g.image, mask=g.add("SolidMask", value=0.0, width=SIZE, height=SIZE))},
            "FramePack_Place: mask is black, so that nothing of the image would be seen",
        ),
    ],
)
def test_what_gives_no_picture_is_refused_before_the_first_step(graph, server, change, message):
    assert message in graph.refusal(server, picture(graph, **{"frames": place(graph, graph.image), **change(graph)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_index": 101}, "Value 101 bigger than max of 100"),
        ({"target_index": -1}, "Value -1 smaller than min of 0"),
        ({"history": "no 8x"}, "'no 8x' not in"),
        ({"sampler": "unipc"}, "'unipc' not in"),
    ],
)
def test_values_out_of_range_are_refused_when_the_prompt_is_queued(graph, server, change, message):
    with pytest.raises(PromptRefused, match=message):
        server.run(graph.saving(picture(graph, place(graph, graph.image), **change)))


def test_a_mask_of_something_fixed_is_refused_in_a_video(graph, server):
    frames = place(graph, graph.image, mask=half_mask(graph))

    said = graph.refusal(server, graph.sampler(start_latent=None, frames=frames))

    assert "FramePack_Sampler: what is fixed at the start has a mask, but frames of a video are whole" in said
