"""Decoding on cards of every size: never more than is free, never on the CPU, and no pixel twice."""

import comfy.model_management
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.card.card import DEVICE, GB, FakeCard
from experiments.card.decoding import SIZES, decode, decode_long
from experiments.card.models import released_transformer, released_vae, released_weights
from framepack_core.comfyui.decoding import bands
from framepack_core.comfyui.decoding.hunyuan import UP_PLANES, plane_size
from framepack_core.comfyui.decoding.stream import LINEAR, stream_frames
from framepack_core.frames import pixel_frames

pytestmark = pytest.mark.slow


class Pixels(TorchDispatchMode):
    """Values that convolutions of 3x3x3 put out on the card, and where those of pictures are."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default and args[1].shape[2:] == (3, 3, 3):
            assert out.device == DEVICE
            self.values += out.numel()
        return out


def require_within(card: FakeCard) -> None:
    """The memory is planned, not tried out: nothing was refused."""
    assert card.memory.peak <= card.memory.size
    assert not card.memory.refused


@pytest.mark.parametrize("free", [2, 5, 10.5, 12])
def test_with_the_vae_s_weights_it_takes_no_more_than_is_free(free):
    """The smallest card, one in between, the last whose layers are in bands, and the first whose layers are whole."""
    require_within(decode(free, 10, SIZES["640x608"], torch.bfloat16, steps=2))


@pytest.mark.parametrize(
    ("free", "size", "dtype"),
    [
        (2, "832x480", torch.bfloat16),  # the middle block passes over the video in chunks,
        (3, "640x608", torch.bfloat16),  # and from here on it takes the whole of it
        (10.5, "832x480", torch.bfloat16),  # layers are in bands,
        (12, "640x608", torch.bfloat16),  # and from here on whole
        (10.5, "640x608", torch.float16),
        (4, "832x480", torch.float32),  # chunks
        (5, "640x608", torch.float32),  # the whole
        (16, "832x480", torch.float32),  # bands
        (24, "640x608", torch.float32),  # whole layers
    ],
    ids=str,
)
def test_in_any_precision_and_shape_it_takes_no_more(free, size, dtype):
    """On both sides of each change. The state that is carried is whole after the first step."""
    require_within(decode(free, 37, SIZES[size], dtype, steps=2))


def test_however_long_the_video_is_it_takes_no_more():
    """Other cards, in every size and precision: `python3 scripts/bench.py card --long`."""
    require_within(decode_long(4, SIZES["832x480"], torch.float32))


def test_with_every_key_of_a_long_video_it_takes_no_more():
    """None of the blocks of keys left out, but fewer frames to attend to."""
    with FakeCard(3 * GB) as card:
        next(stream_frames(released_vae(torch.bfloat16), torch.zeros(1, 16, 450, *SIZES["640x608"]), attention_frames=16))

    require_within(card)


def test_on_the_smallest_card_too_no_pixel_is_computed_twice():
    whole, parts = Pixels(), Pixels()

    decode(24, 5, (40, 40), torch.bfloat16, watching=[whole])
    decode(2, 5, (40, 40), torch.bfloat16, watching=[parts])

    assert parts.values == whole.values


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_from_12_gb_on_layers_are_computed_whole_in_16_bits(monkeypatch, dtype):
    """In float32 they are in bands up to 24 GB."""
    calls = []
    monkeypatch.setattr(bands.Bands, "__call__", lambda self, h: calls.append(h) or torch.zeros(1, 3, 5, 608, 640))

    decode(12, 3, SIZES["640x608"], dtype, steps=1)

    assert bool(calls) == (dtype == torch.float32)


def test_the_memory_that_whole_layers_are_said_to_take_is_what_they_take():
    with FakeCard(24 * GB) as card:
        vae, latents = released_vae(torch.bfloat16), torch.zeros(1, 16, 10, *SIZES["640x608"])
        for _ in stream_frames(vae, latents):
            pass
        taken = card.memory.peak - vae.patcher.loaded_size()
        said = UP_PLANES * plane_size(vae, latents)

    assert 0.9 * said < taken < said


def test_the_model_leaves_the_card_for_a_decode_that_needs_its_room():
    """Free memory counts what ComfyUI can free."""
    with FakeCard(12 * GB) as card:
        model = released_transformer(released_weights(torch.float8_e4m3fn))
        comfy.model_management.load_models_gpu([model], memory_required=2 * GB)
        assert model.loaded_size() > 7 * GB

        for _ in stream_frames(released_vae(torch.bfloat16), torch.zeros(1, 16, 3, *SIZES["640x608"])):
            pass

    assert not card.memory.refused


@pytest.mark.parametrize("free", [4, 24])
def test_blended_windows_take_no_more_than_is_free(free):
    with FakeCard(free * GB) as card:
        vae = released_vae(torch.bfloat16)
        frames = sum(len(chunk) for chunk in stream_frames(vae, torch.zeros(1, 16, 20, 40, 40), LINEAR))

    assert frames == pixel_frames(20)
    require_within(card)


LOADING, LATENTS, MIDDLE, FIRST_STEP, THIRD_STEP = 200, 250, 270, 400, 900  # operations of a decode of seven latent frames


@pytest.mark.parametrize("operation", [1, LOADING, LATENTS, MIDDLE, FIRST_STEP, THIRD_STEP])
def test_running_out_of_memory_at_any_operation_loses_no_frame(operation):
    """Another program takes what was free: at the first operation, which loads the weights, or any later one."""

    def run_out(number: int) -> None:
        if number == operation:
            raise torch.OutOfMemoryError("another program took it")

    with FakeCard(24 * GB) as card:
        vae, latents = released_vae(torch.bfloat16), torch.zeros(1, 16, 7, 40, 40)
        card.memory.before = run_out
        frames = sum(len(chunk) for chunk in stream_frames(vae, latents))
        again = sum(len(chunk) for chunk in stream_frames(vae, latents))

    assert frames == again == pixel_frames(7)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (LOADING, KeyboardInterrupt),
        (MIDDLE, ValueError),
        (FIRST_STEP, InterruptProcessingException),
        (THIRD_STEP, InterruptProcessingException),
    ],
)
def test_after_a_decode_that_was_cancelled_or_failed_the_same_one_runs(operation, error):
    def fail(number: int) -> None:
        if number == operation:
            raise error

    with FakeCard(24 * GB) as card:
        vae, latents = released_vae(torch.bfloat16), torch.zeros(1, 16, 7, 40, 40)
        card.memory.before = fail
        with pytest.raises(error):
            list(stream_frames(vae, latents))
        again = sum(len(chunk) for chunk in stream_frames(vae, latents))

    assert again == pixel_frames(7)
