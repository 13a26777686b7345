"""A video decoded in a stream is the video that ComfyUI decodes at once; where it cannot be, the cuts do not show."""

import comfy.model_management
import comfy.sd
import pytest
import torch
from support.stand_ins.write_models import taehv
from support.threads import one_thread  # noqa: F401 - a fixture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.benchmarks.decode import border_pairs, frame_steps, hunyuan_vae, psnr, scene_latents, tiled
from experiments.benchmarks.live import LiveBytes
from framepack_core.comfyui import demo
from framepack_core.comfyui.decoding.hunyuan import plane_size
from framepack_core.comfyui.decoding.middle import Middle, whole_middle
from framepack_core.comfyui.decoding.room import Room
from framepack_core.comfyui.decoding.stream import LINEAR, decode_video, footage, stream_frames
from framepack_core.comfyui.latent import LENGTH, length_of
from framepack_core.frames import Length

NARROW = 32


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def hunyuan() -> comfy.sd.VAE:
    return hunyuan_vae(NARROW)


@pytest.fixture(scope="module")
def tiny() -> comfy.sd.VAE:
    return comfy.sd.VAE(sd=taehv(seed=3))


@pytest.fixture(scope="module")
def demo_vae() -> comfy.sd.VAE:
    return demo.load_vae()


def streamed(vae: comfy.sd.VAE, latents: Tensor, **options) -> Tensor:
    return torch.cat(list(stream_frames(vae, latents, **options)))


# HunyuanVideo


@pytest.mark.parametrize("frames", [1, 2, 3, 10])
def test_hunyuan_video_is_decoded_as_comfyui_does_it(hunyuan, frames):
    latents = scene_latents(frames, 4, 6)

    found = streamed(hunyuan, latents)

    assert found.shape == (4 * frames - 3, 32, 48, 3)
    assert psnr(found, hunyuan.decode(latents)[0]) > 80


def test_the_released_widths_are_decoded_as_comfyui_does_it():
    vae, latents = hunyuan_vae(), scene_latents(5, 2, 2)

    assert psnr(streamed(vae, latents), vae.decode(latents)[0]) > 60


@pytest.mark.parametrize("free", [1e9, 1e5])
@pytest.mark.parametrize("frames", [11, 12])
def test_chunk_by_chunk_the_middle_block_is_exact_with_all_keys(hunyuan, frames, free):
    decoder, latents = hunyuan.first_stage_model.decoder, scene_latents(frames, 4, 6)
    chunks = latents.split(2, dim=2)

    room = Room(torch.device("cpu"), free)
    found = torch.cat(list(Middle(decoder, lambda: iter(chunks), len(chunks), len(chunks), room)), dim=2)

    expected = whole_middle(decoder, latents, room)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.slow
def test_beyond_its_budget_it_is_nearer_to_the_whole_than_blends_and_tiles_are():
    """Each way sees 18 latent frames at once. No step between frames stands out where chunks meet."""
    vae, latents = hunyuan_vae(NARROW, attention="peaked"), scene_latents(46, 4, 4)
    whole = vae.decode(latents)[0]
    found = streamed(vae, latents, attention_frames=18)

    others = (psnr(frames, whole) for frames in (streamed(vae, latents, blending=LINEAR), tiled(vae, latents)))

    assert psnr(found, whole) > max(others) + 3
    steps = frame_steps(found)
    assert steps[border_pairs(len(found))].max() <= steps.quantile(0.99)


@pytest.mark.slow
def test_its_memory_does_not_grow_with_length():
    vae = hunyuan_vae(NARROW)
    peaks = []
    for frames in (20, 60):
        latents = scene_latents(frames, 2, 2)
        with LiveBytes() as live:
            for chunk in stream_frames(vae, latents, attention_frames=16):
                assert len(chunk) <= 8
        peaks.append(live.peak)

    assert peaks[1] < 1.05 * peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("planes", [1000, 100, 5])
def test_with_less_memory_the_frames_are_the_same(hunyuan, monkeypatch, planes, frames):
    """Memory for this many latent frames of the middle block's features: layers in bands, kept on the card, partly, not."""
    latents = scene_latents(frames, 8, 6)
    expected = streamed(hunyuan, latents)
    monkeypatch.setattr(hunyuan.patcher, "get_free_memory", lambda device: planes * plane_size(hunyuan, latents))

    found = streamed(hunyuan, latents)

    assert found.shape == expected.shape and psnr(found, expected) > 100


class RunsOut(TorchDispatchMode):
    """An operation, counted among those that make as much as a layer, raises what a full card does."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.ndim == 5:
            self.left -= 1
            if self.left == 0:
                raise torch.OutOfMemoryError("no room left")
        return out


@pytest.mark.slow
@pytest.mark.parametrize("frames", [5, 12])
@pytest.mark.parametrize("operation", [1, 30, 300, 1000])
def test_running_out_of_memory_is_survived_with_the_same_frames(hunyuan, caplog, operation, frames):
    """In the middle block, which with 12 frames runs chunk by chunk, in whole layers, and again in bands."""
    latents = scene_latents(frames, 8, 6)
    expected = streamed(hunyuan, latents, attention_frames=12)

    with RunsOut(operation) as card:
        found = streamed(hunyuan, latents, attention_frames=12)

    assert psnr(found, expected) > 100
    assert card.left > 0 or [record.message.count("ran out of memory") for record in caplog.records] == [1]


def test_other_errors_are_not_taken_for_a_full_card(hunyuan, monkeypatch):
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(hunyuan.first_stage_model.decoder.conv_out.conv, "forward", broken)

    with pytest.raises(RuntimeError, match="a bug"):
        streamed(hunyuan, scene_latents(3, 4, 4))


# Other architectures


@pytest.mark.parametrize("frames", [1, 16, 17, 40])
@pytest.mark.parametrize("name", ["demo_vae", "tiny"])
def test_causal_decoders_are_exact(request, name, frames):
    vae, latents = request.getfixturevalue(name), scene_latents(frames, 4, 6)

    assert psnr(streamed(vae, latents), vae.decode(latents)[0]) > 80


def test_linear_blending_is_the_official_program_s(demo_vae):
    """Two sections of 9 after a start: 18 latent frames are decoded at once, and 33 frames are blended."""
    latents = scene_latents(19, 4, 4)
    first, second = (demo_vae.decode(part)[0] for part in (latents[:, :, :10], latents[:, :, 1:]))
    weight = torch.linspace(1, 0, 33).view(-1, 1, 1, 1)
    shared = weight * first[-33:] + (1 - weight) * second[:33]

    found = streamed(demo_vae, latents, blending=LINEAR)

    assert (found - torch.cat([first[:-33], shared, second[33:]])).abs().max() < 1e-5


class Doubled(torch.nn.Module):
    """An unknown architecture."""

    def decode(self, latents: Tensor) -> Tensor:
        frames = latents[:, :3].repeat_interleave(4, dim=2)[:, :, 3:]
        return torch.nn.functional.interpolate(frames, scale_factor=(1, 8, 8)).contiguous()


@pytest.mark.parametrize("frames", [1, 9, 18, 40])
def test_an_unknown_decoder_runs_in_windows(frames, monkeypatch):
    vae, latents = demo.load_vae(), scene_latents(frames, 2, 2)
    vae.first_stage_model = Doubled()

    assert torch.allclose(streamed(vae, latents), vae.decode(latents)[0], atol=1e-5)


def test_videos_follow_one_another_and_all_their_frames_can_be_had_at_once(demo_vae):
    latents = torch.cat([scene_latents(10, 2, 3, seed) for seed in (1, 2)])

    found = streamed(demo_vae, latents)

    assert psnr(found, demo_vae.decode(latents).flatten(0, 1)) > 80
    assert torch.equal(decode_video(demo_vae, latents), found)


def test_it_can_be_interrupted_between_chunks(demo_vae):
    chunks = stream_frames(demo_vae, scene_latents(40, 2, 2))
    next(chunks)
    comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        next(chunks)


def test_other_latents_and_other_vaes_are_refused(demo_vae):
    with pytest.raises(ValueError, match=r"latent has shape \(1, 4, 8, 8\), expected \(B, 16, T, H, W\)"):
        stream_frames(demo_vae, torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"vae decodes 5 latent frames to shape .* expected 17 frames"):
        streamed(comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}), torch.zeros(1, 16, 5, 8, 8))


# Loops and exact lengths


def rolled(latents: Tensor, by: int) -> Tensor:
    """The same loop from another frame on; the first latent frame, which is no part of it, stays."""
    return torch.cat([latents[:, :, :1], latents[:, :, 1:].roll(-by, 2)], dim=2)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [2, 5, 28])
@pytest.mark.parametrize("name", ["demo_vae", "tiny"])
def test_a_loop_that_begins_elsewhere_has_the_same_frames_from_there_on(request, name, frames):
    """So there is no seam: where a loop is cut open does not matter. Its first latent frame does not, either."""
    vae, latents = request.getfixturevalue(name), scene_latents(frames, 4, 6)
    other, length = torch.cat([-latents[:, :, :1], latents[:, :, 1:]], dim=2), Length(frames, loop=True)

    found = streamed(vae, latents, length=length)

    assert found.shape == (4 * (frames - 1), 32, 48, 3)
    for by in (1, 3, frames // 2):
        assert torch.equal(streamed(vae, rolled(other, by), length=length), found.roll(-4 * by, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("blending", "frames"), [("exact", 28), (LINEAR, 33)])
def test_the_step_from_a_loop_s_last_frame_to_its_first_is_no_larger_than_those_inside(hunyuan, blending, frames):
    """Of one even motion. HunyuanVideo's decoder remembers more than is decoded before the loop, so it is measured."""
    turn = torch.arange(frames) / (frames - 1) * 2 * torch.pi
    one, two = torch.randn(2, 1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    latents = one * turn.cos().view(1, 1, -1, 1, 1) + two * turn.sin().view(1, 1, -1, 1, 1)
    around = [*range(4 * (frames - 1)), 0]

    looped = frame_steps(streamed(hunyuan, latents, blending=blending, length=Length(frames, loop=True))[around])
    plain = frame_steps(streamed(hunyuan, latents, blending=blending)[1:][around])
    assert looped[-1] <= looped[:-1].quantile(0.5 if blending == "exact" else 0.9)
    assert looped[-1] < plain[-1] / 2


def test_every_video_of_a_batch_is_a_loop_of_its_own(demo_vae):
    latents, length = torch.cat([scene_latents(10, 2, 3, seed) for seed in (1, 2)]), Length(10, loop=True)

    found = decode_video(demo_vae, latents, length)

    assert torch.equal(found, torch.cat([streamed(demo_vae, one, length=length) for one in latents.split(1)]))
    assert footage(demo_vae, latents, length=length).count == len(found) == 72


@pytest.mark.parametrize("exact", [1, 36, 37])
def test_an_exact_length_ends_sooner_with_the_same_frames(demo_vae, exact):
    latents = scene_latents(10, 2, 3)

    found = decode_video(demo_vae, latents, Length(10, exact=exact))

    assert torch.equal(found, decode_video(demo_vae, latents)[:exact])


def test_what_is_cut_off_is_not_decoded(demo_vae, monkeypatch):
    decoded = []

    def decode(latents: Tensor) -> Tensor:
        decoded.append(latents.shape[2])
        return torch.zeros(1, 4 * latents.shape[2] - 3, 16, 24, 3)

    monkeypatch.setattr(demo_vae, "decode", decode)

    streamed(demo_vae, scene_latents(30, 2, 3), length=Length(30, exact=20))

    assert decoded == [8]


def test_a_latent_that_another_node_has_cut_is_shown_whole():
    latent = {"samples": torch.zeros(1, 16, 28, 4, 4), LENGTH: Length(28, loop=True)}

    assert length_of(latent) == Length(28, loop=True)
    assert length_of({**latent, "samples": torch.zeros(1, 16, 20, 4, 4)}) == length_of(
        {"samples": torch.zeros(1, 16, 20, 4, 4)}
    )
