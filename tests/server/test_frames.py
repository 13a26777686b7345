"""Stills and clips that are given, text to video, and video to video, from the prompt to the latents or frames."""

import av
import numpy
import pytest
import torch
from PIL import Image
from support.graph import CancelAt, DemoGraph, Outputs, Seen

from scripts.support.server import RunFailed

SECTION = 9  # latent frames


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


def place(graph: DemoGraph, images: Outputs, **changes) -> Outputs:
    inputs = {"images": images, "vae": graph.vae, "at": "start", "seconds": 0.0, "use": "fixed"}
    return graph.add("FramePack_Place", **{**inputs, "clip_vision": graph.vision, "base_resolution": 128, **changes})


def clip(graph: DemoGraph, frames: int) -> Outputs:
    return graph.add("RepeatImageBatch", image=graph.image, amount=frames)


def empty(graph: DemoGraph) -> Outputs:
    return graph.add("EmptyHunyuanLatentVideo", width=128, height=128, length=1, batch_size=1)


def psnr(frame: numpy.ndarray, other: numpy.ndarray) -> float:
    return float(-10 * numpy.log10(((frame / 255 - other / 255) ** 2).mean()))


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_a_still_at_a_time_is_in_the_video_there(graph, server, order):
    other = graph.add("FramePack_DemoImage", seed=5)
    frames, seen = place(graph, other, at="time", seconds=1.4), Seen()
    sampler = graph.sampler(plan=graph.plan_of(2, order=order), frames=frames)

    latents = graph.latents(server, sampler, on_message=seen)
    video = graph.frames(server, graph.add("FramePack_Decode", latent=sampler, vae=graph.vae))
    (picture,) = graph.frames(server, other)
    still = graph.add("VAEEncode", pixels=graph.add("RepeatImageBatch", image=other, amount=5), vae=graph.vae)
    own = graph.frames(server, graph.add("VAEDecode", samples=still, vae=graph.vae))

    assert latents.shape[2] == 1 + SECTION + 1 + SECTION
    # The first of the four is a blend with the one before. For the others, the decoder has no second look at the picture.
    assert min(psnr(frame, picture) for frame in video[38:41]) > min(psnr(frame, picture) for frame in own[2:5]) - 2
    assert max(psnr(frame, picture) for frame in video[:30]) < 30
    assert any("placed at 1.40 s is at 1.23 s" in text for text in seen.texts(sampler))


def test_a_batch_of_images_at_several_times_is_a_chain_of_stills(graph, server):
    other = graph.add("FramePack_DemoImage", seed=5)
    batch = graph.add("ImageBatch", image1=graph.image, image2=other)
    chain = place(graph, other, at="time", seconds=1.4, frames=place(graph, graph.image))
    at_once = place(graph, batch, times="start, 1.4")

    def latents(frames: Outputs) -> torch.Tensor:
        sampler = graph.sampler(start_latent=None, clip_vision_output=None, frames=frames, plan=graph.plan_of(2))
        return graph.latents(server, sampler)

    assert torch.equal(latents(at_once), latents(chain))


def test_pictures_of_every_kind_are_placed_as_they_look(graph, server):
    """Turned by their EXIF tag, in 16 bits, or transparent: as Load Image shows them, without what is transparent."""
    picture = numpy.full((96, 64, 3), (200, 90, 30), numpy.uint8)
    picture[:48] = 20
    turned = Image.fromarray(numpy.rot90(picture).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned to the right
    folder = server.base / "input"
    Image.fromarray(picture).save(folder / "plain.png")
    turned.save(folder / "turned.png", exif=exif)
    Image.fromarray(numpy.dstack([picture, numpy.full((96, 64), 128, numpy.uint8)])).save(folder / "transparent.png")
    Image.fromarray(numpy.full((96, 64), 200 * 257, numpy.uint16)).save(folder / "grey16.png")

    def used(name: str) -> numpy.ndarray:
        (frame,) = graph.frames(server, place(graph, graph.add("LoadImage", image=name), base_resolution=64)[1])
        return frame

    plain = used("plain.png")
    assert numpy.array_equal(used("turned.png"), plain)
    assert numpy.array_equal(used("transparent.png"), plain)
    assert abs(used("grey16.png").astype(int) - 200).max() <= 1


@pytest.mark.parametrize(("at", "length"), [("start", 6), ("end", 5)])
def test_a_clip_is_continued_or_led_up_to(graph, server, at, length):
    """4 k + 1 of its frames are used: 21 of 23. Only at the start is the first of them part of the video."""
    sampler = graph.sampler(start_latent=None, clip_vision_output=None, frames=place(graph, clip(graph, 23), at=at))

    latents = graph.latents(server, sampler)

    assert latents.shape[2] == length + SECTION
    still = latents[:, :, :1] if at == "start" else latents[:, :, -1:]
    part = latents[:, :, :length] if at == "start" else latents[:, :, -length:]
    torch.testing.assert_close(part, still.expand_as(part), atol=0.1, rtol=0)
    rest = latents[:, :, length:] if at == "start" else latents[:, :, :-length]
    assert not torch.allclose(rest, still.expand_as(rest), atol=0.1)


def test_what_is_placed_in_a_chain_has_the_size_of_the_first(graph, server):
    small = graph.add("ImageScale", image=graph.image, upscale_method="area", width=64, height=96, crop="disabled")
    frames = place(graph, small, frames=place(graph, graph.image, base_resolution=96), at="end")

    latents = graph.latents(server, graph.sampler(start_latent=None, clip_vision_output=None, frames=frames))

    assert latents.shape[2:] == (1 + SECTION + 1, 12, 12)


@pytest.mark.parametrize(("start_image", "frames"), [(True, 20), (False, 19)])
def test_a_drawing_has_the_sampler_s_length_with_or_without_a_start_image_beside_keyframes(graph, server, start_image, frames):
    plan, keyframe = graph.plan_of(2), place(graph, graph.image, at="time", seconds=1.4)
    drawn = graph.add("FramePack_DrawPlan", plan=plan, width=128, height=128, frames=keyframe, start_image=start_image)
    start = {} if start_image else {"start_latent": None, "clip_vision_output": None}
    shown = graph.add("PreviewAny", source=drawn[1])

    latents = graph.latents(server, graph.sampler(plan=plan, frames=keyframe, **start))
    (table,) = server.run(graph.prompt)["outputs"][shown.node]["text"]

    assert latents.shape[2] == frames
    assert f"{frames} latent frames = {4 * frames - 3} frames" in table


@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_without_any_image_the_video_is_made_from_the_prompt(graph, server, order):
    sampler = graph.sampler(
        start_latent=None, clip_vision_output=None, latent_image=empty(graph), plan=graph.plan_of(2, order=order)
    )

    latents = graph.latents(server, sampler)

    assert latents.shape == (1, 16, 2 * SECTION, 16, 16)
    assert latents.isfinite().all() and latents.std() > 0.1


def test_the_lower_denoise_is_the_nearer_the_video_stays(graph, server):
    before = graph.sampler(seed=1, steps=4)
    near, far = (graph.sampler(seed=2, steps=4, latent_image=before, denoise=denoise) for denoise in (0.3, 0.8))

    first, second, third = (graph.latents(server, latent) for latent in (before, near, far))

    assert (second - first).norm() < 0.8 * (third - first).norm()
    assert torch.equal(second[:, :, 0], first[:, :, 0])


def test_the_custom_sampler_begins_from_a_video_where_its_sigmas_do(graph, server):
    before = graph.sampler(seed=1, steps=4)
    whole = graph.add("FramePack_Scheduler", steps=8, shift=7.0, latent=graph.start, window=9)
    low = graph.add("SplitSigmasDenoise", sigmas=whole, denoise=0.5)[1]  # begins at 0.875

    changed = graph.latents(server, graph.custom_sampler(seed=2, latent_image=before, sigmas=low))

    assert torch.equal(
        changed, graph.latents(server, graph.sampler(seed=2, steps=4, latent_image=before, denoise=0.5, shift=7.0))
    )


def test_an_empty_latent_gives_the_custom_sampler_the_size_but_a_video_of_another_length_is_refused(graph, server):
    low = graph.add("ManualSigmas", sigmas="0.9, 0.3, 0")
    longer = graph.sampler(plan=graph.plan_of(2))
    plain, sized = (graph.custom_sampler(sigmas=low, **given) for given in ({}, {"latent_image": empty(graph)}))

    refusal = graph.refusal(server, graph.custom_sampler(sigmas=low, latent_image=longer))

    assert torch.equal(graph.latents(server, plain), graph.latents(server, sized))
    assert refusal.startswith("FramePack_SamplerCustom: latent_image holds 19 latent frames, but the plan's video has 10")
    assert "or begin from noise (denoise 1)" in refusal


def test_a_colour_anchor_keeps_the_mean_of_each_channel(graph, server):
    latents = graph.latents(server, graph.sampler(colour_anchor=1.0, plan=graph.plan_of(2)))

    sections = latents[:, :, 1:].unflatten(2, (2, SECTION)).mean(dim=(3, 4, 5))
    torch.testing.assert_close(sections, latents[:, :, :1].mean(dim=(3, 4))[..., :1].expand_as(sections), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_a_section_is_made_again_and_everything_else_stays_bit_for_bit(graph, server, order):
    plan = graph.plan_of(3, order=order)
    finished = graph.sampler(plan=plan, seed=1)
    again = graph.add("FramePack_Redo", latent=finished, plan=plan, sections="2")

    redone = graph.sampler(plan=again, frames=again[1], start_latent=None, seed=2)

    before, after = graph.latents(server, finished), graph.latents(server, redone)
    changed = [frame for frame in range(28) if not torch.equal(before[:, :, frame], after[:, :, frame])]
    assert changed == list(range(10, 19))


MODES = {
    "extended forwards": lambda g: {"frames": place(g, clip(g, 21)), "plan": g.plan_of(2, order="forward")},
    "extended backwards": lambda g: {"frames": place(g, clip(g, 21), at="end")},
    "between two clips": lambda g: {"frames": place(g, clip(g, 9), at="end", frames=place(g, clip(g, 9)))},
    "keyframes": lambda g: {
        "frames": place(g, g.add("FramePack_DemoImage", seed=5), at="time", seconds=1.2, frames=place(g, g.image))
    },
    "guided": lambda g: {"frames": place(g, g.image, at="time", seconds=1.0, use="guide")},
    "text to video": lambda g: {"latent_image": empty(g)},
    "again, with less noise": lambda g: {
        "latent_image": g.sampler(plan=g.plan_of(2), seed=4999, resume=False), "denoise": 0.6, "frames": place(g, g.image)
    },
    "sections made again": lambda g: redone(g, g.plan_of(4), "2,4"),
}  # fmt: skip


def redone(graph: DemoGraph, plan: Outputs, sections: str) -> dict[str, Outputs]:
    finished = graph.sampler(plan=plan, seed=4998, resume=False)
    again = graph.add("FramePack_Redo", latent=finished, plan=plan, sections=sections)
    return {"plan": again, "frames": again[1]}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_run_goes_on_in_every_mode_and_ends_in_the_same_bits(graph, server, mode):
    changes = {"plan": graph.plan_of(2), "start_latent": None, "clip_vision_output": None, **MODES[mode](graph)}
    settings = {"seed": 4100 + list(MODES).index(mode), "steps": 4, **changes}
    sampler = graph.sampler(**settings)

    with pytest.raises(RunFailed) as failure:
        graph.latents(server, sampler, on_message=CancelAt(server, sampler, "section 2 of 2"))
    seen = Seen()
    found = graph.latents(server, sampler, on_message=seen)

    assert failure.value.interrupted
    assert "resumed: 1 of 2 sections" in "\n".join(seen.texts(sampler))
    assert torch.equal(found, graph.latents(server, graph.sampler(**settings, resume=False)))


@pytest.mark.slow
def test_the_finished_part_of_an_extension_is_saved_after_the_original(graph, server):
    """The end of the video, which was made first; the given frames at its start do not adjoin it."""
    given = clip(graph, 41)
    original = graph.add("CreateVideo", images=given, fps=30.0)
    sampler = graph.sampler(
        plan=graph.plan_of(3), frames=place(graph, given), start_latent=None, clip_vision_output=None, seed=4200, steps=4,
        on_cancel="return finished part",
    )  # fmt: skip
    saved = graph.add("FramePack_SaveVideo", latent=sampler, vae=graph.vae, fps=30.0, filename_prefix="part", crf=18.0,
                      before=original)  # fmt: skip
    seen = CancelAt(server, sampler, "section 2 of 3")

    [file] = server.output_files(server.run(graph.prompt, on_message=seen))

    with av.open(str(file)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 41 + 33
    assert "before: a hard cut, since the latent is the finished part of a cancelled run" in "\n".join(seen.texts(saved))


def test_another_section_of_what_was_made_again_can_be_made_again(graph, server):
    plan = graph.plan_of(3)
    first = graph.sampler(plan=plan, seed=1)
    again = graph.add("FramePack_Redo", latent=first, plan=plan, sections="2")
    second = graph.sampler(plan=again, frames=again[1], start_latent=None, seed=2)
    once_more = graph.add("FramePack_Redo", latent=second, plan=plan, sections="3")
    third = graph.sampler(plan=once_more, frames=once_more[1], start_latent=None, seed=3)

    before, after = graph.latents(server, second), graph.latents(server, third)

    changed = [frame for frame in range(28) if not torch.equal(before[:, :, frame], after[:, :, frame])]
    assert changed == list(range(1, 10))


def test_a_guide_is_shown_again_to_what_is_made_again(graph, server):
    """As if it were placed again; nothing can be fixed there."""
    plan, other = graph.plan_of(3), graph.add("FramePack_DemoImage", seed=5)
    guide = {"at": "time", "seconds": 1.5, "use": "guide"}
    finished = graph.sampler(plan=plan, frames=place(graph, other, **guide), seed=1)
    again = graph.add("FramePack_Redo", latent=finished, plan=plan, sections="2")
    second = {"plan": again, "start_latent": None, "clip_vision_output": None, "seed": 2}

    found = graph.latents(server, graph.sampler(frames=again[1], **second))

    placed = graph.sampler(frames=place(graph, other, frames=again[1], **guide), **second)
    assert torch.equal(found, graph.latents(server, placed))
    with pytest.raises(RunFailed) as failure:
        graph.latents(server, graph.sampler(frames=place(graph, other, frames=again[1], at="time", seconds=1.5), **second))
    assert "FramePack_Place: something is fixed at 1.50 s, but frames are the rest of a finished" in failure.value.message


def test_the_end_is_shown_again_to_the_section_that_saw_it(graph, server):
    """As if end_latent were connected again, in the inverted order, which shows it to its first section only."""
    plan, end = graph.plan_of(2), graph.encode(graph.add("FramePack_DemoImage", seed=5))
    finished = graph.sampler(plan=plan, end_latent=end, end_strength=0.8, seed=1)
    second = {"start_latent": None, "seed": 2}

    def made_again(latent: Outputs, **inputs) -> torch.Tensor:
        again = graph.add("FramePack_Redo", latent=latent, plan=plan, sections="1")
        return graph.latents(server, graph.sampler(plan=again, frames=again[1], **second, **inputs))

    found = made_again(finished)

    assert torch.equal(found, made_again(finished, end_latent=end, end_strength=0.8))
    assert not torch.equal(found, made_again(finished, end_latent=end, end_strength=0.3))


def test_frames_are_part_of_what_finished_sections_are_kept_for(graph, server):
    """The same prompt again is resumed; without its guide, only the section before those that see it is."""
    plan, other = graph.plan_of(2), graph.add("FramePack_DemoImage", seed=5)
    guided = place(graph, other, at="time", seconds=1.0, use="guide", clip_vision=None)

    texts = []
    for frames, cfg in ((guided, 1.0), (guided, 1.0001), (None, 1.0001)):
        seen = Seen()
        sampler = graph.sampler(plan=plan, frames=frames, seed=77, end_strength=cfg / 1.0001)
        graph.latents(server, sampler, on_message=seen)
        texts.append("\n".join(seen.texts(sampler)))

    assert "resumed" not in texts[0] and "resumed: 2 of 2" in texts[1] and "resumed: 1 of 2" in texts[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: {"frames": place(g, clip(g, 3), at="end")}, "images holds 3 frames at the video's rate, but a clip needs 5"),
        (lambda g: {"frames": place(g, g.image)}, "the video's start is given twice"),
        (lambda g: {"frames": place(g, g.image, at="time", seconds=99.0)}, "placed at 99.00 s, but the video has 1.37 s"),
        (lambda g: {"frames": place(g, g.image, at="end", base_resolution=96)}, "start_latent is 16x16 but frames is 12x12"),
        (lambda g: {"start_latent": None}, "nothing gives the video's size; connect start_latent, frames, or an empty latent"),
        (
            lambda g: {"latent_image": empty(g), "denoise": 0.5},
            "latent_image holds 1 latent frames, but the plan's video has 10",
        ),
        (lambda g: {"denoise": 0.5}, "denoise is below 1 but latent_image is not connected"),
        (
            lambda g: {"frames": place(g, g.image, at="end", plan=g.plan_of(1, fps=24.0), frames=place(g, clip(g, 9)))},
            "FramePack_Place: frames are placed at 30 fps, but the plan has 24",
        ),
        (
            lambda g: {"frames": place(g, g.image, at="end"), "plan": g.plan_of(1, order="forward")},
            "something is fixed after the start, but the forward order never looks ahead",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(graph, server, change, message):
    assert message in graph.refusal(server, graph.sampler(**change(graph)))
