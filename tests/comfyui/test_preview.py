"""What a sampler node shows while it runs: pictures from a separate thread, the time left, and a growing preview."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Condition
from types import SimpleNamespace

import av
import comfy.latent_formats
import comfy.utils
import folder_paths
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from PIL import Image

from framepack_core.comfyui.preview import clip as clips
from framepack_core.comfyui.preview import filmstrip, progress
from framepack_core.comfyui.preview.clip import EVENT, Clip
from framepack_core.comfyui.preview.filmstrip import Pictures
from framepack_core.comfyui.preview.progress import Progress
from framepack_core.frames import Length, pixel_frames, runs
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

SIZE = 4  # latent pixels
FPS = 30.0


class Node:
    """A running node that records the pictures sent to it, as the grey level in the middle of their upper part."""

    def __init__(self) -> None:
        self.levels: list[int] = []
        self.arrived = Condition()

    def show(self, picture: Image.Image, value: float, most: float) -> None:
        with self.arrived:
            self.levels.append(picture.getpixel((picture.width // 2, picture.height // 3))[0])
            self.arrived.notify_all()

    def wait_for(self, *levels: int) -> None:
        """Wait until these have come directly after each other."""
        with self.arrived:
            came = self.arrived.wait_for(lambda: self._had(list(levels)), timeout=30)
        assert came, f"{levels} did not come, but {self.levels}"

    def _had(self, levels: list[int]) -> bool:
        return any(self.levels[at : at + len(levels)] == levels for at in range(len(self.levels)))


class Previewer:
    """Turns latents whose value is a grey level into pictures."""

    def __init__(self) -> None:
        self.calls = 0

    def decode_latent_to_preview(self, x0: torch.Tensor) -> Image.Image:
        assert x0.shape == (1, 16, 1, SIZE, SIZE)
        self.calls += 1
        level = round(x0.mean().item())
        return Image.new("RGB", (SIZE, SIZE), (level, level, level))


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class VAE:
    """Decodes each latent frame to four uniform frames of the latent's value, the first one of a call to a single frame."""

    vae_dtype = torch.float32
    first_stage_model = None
    latent_channels = 16

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail
        self.decoded: list[int] = []  # latent frames of each call
        self.asked: list[float] = []

    def memory_used_decode(self, shape: tuple[int, ...], dtype: torch.dtype) -> float:
        return 1e12

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.asked.append(self.memory_used_decode(latents.shape, self.vae_dtype))
        if self.fail:
            raise torch.OutOfMemoryError("no memory is left")
        self.decoded.append(latents.shape[2])
        levels = latents.mean(dim=(1, 3, 4))[0].repeat_interleave(4)[3:]
        return levels[None, :, None, None, None].expand(1, -1, 8 * SIZE, 8 * SIZE, 3)


def latents_of(*levels: float) -> torch.Tensor:
    """One frame for each level."""
    return torch.tensor(levels, dtype=torch.float32)[None, None, :, None, None].expand(1, 16, -1, SIZE, SIZE).clone()


@pytest.fixture
def timeline() -> Timeline:
    """Two sections of nine frames after a start frame."""
    return Timeline.of(19, {0: latents_of(0.1)})


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (clips, filmstrip, progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


def pictures_of(timeline: Timeline, node: Node, previewer: Previewer, hidden: int = 0) -> Pictures:
    latent_format = comfy.latent_formats.LatentFormat()
    return Pictures(node, comfy.utils.ProgressBar(4), previewer, latent_format, timeline, FPS, hidden=hidden)


def test_the_frames_being_made_play_in_turn_without_further_steps(timeline, clock, monkeypatch):
    monkeypatch.setattr(filmstrip, "FASTEST", 100.0)
    node = Node()

    with pictures_of(timeline, node, Previewer()) as pictures:
        pictures.play((1, 2, 3), latents_of(50, 100, 150))
        node.wait_for(50, 100, 150, 50, 100, 150, 50)


def test_the_start_image_is_shown_before_the_first_step(timeline):
    timeline.write([0], latents_of(77))
    node = Node()

    with pictures_of(timeline, node, Previewer()):
        node.wait_for(77)


def test_frames_before_the_video_are_not_in_the_strip(timeline, clock, monkeypatch):
    monkeypatch.setattr(filmstrip, "FASTEST", 100.0)
    timeline.write([0], latents_of(77))
    node = Node()

    with pictures_of(timeline, node, Previewer(), hidden=1) as pictures:
        before = pictures.draws
        pictures.keep(range(1, 10), latents_of(*range(10, 100, 10)))
        pictures.play((10, 11), latents_of(150, 200))
        node.wait_for(150, 200, 150)

    thumbnails = {frame: picture.getpixel((0, 0))[0] for frame, picture in pictures.strip.thumbnails.items() if frame < 9}
    assert not before and pictures.strip.frames == 18
    assert thumbnails == {frame: 10 * (frame + 1) for frame in pictures.strip.cells if frame < 9}


@pytest.mark.parametrize("end", [None, ValueError("bad"), InterruptProcessingException()])
def test_pictures_stop_with_the_run_however_it_ends(timeline, end):
    with (
        pytest.raises((ValueError, InterruptProcessingException, StopIteration)),
        pictures_of(timeline, Node(), Previewer()) as shown,
    ):
        raise end or StopIteration

    assert not shown.thread.is_alive()


def test_pictures_take_half_a_hundredth_of_the_time_at_most(timeline, clock):
    previewer = Previewer()
    pictures = pictures_of(timeline, Node(), previewer)
    slow = previewer.decode_latent_to_preview

    def a_second_for_each_frame(x0: torch.Tensor) -> Image.Image:
        clock.now += 1
        return slow(x0)

    previewer.decode_latent_to_preview = a_second_for_each_frame
    for _ in range(800):  # steps in a second, and two frames to show
        clock.now += 1
        pictures.play((1, 2), latents_of(50, 100))

    assert 2 * 1 <= previewer.calls <= 2 * 3


class Queued(torch.Tensor):
    """Latents on a card, whose kernels are still in the queue: whatever needs their values first waits 10 s for them."""

    READS = (torch.Tensor.cpu, torch.Tensor.to, torch.Tensor.item, torch.Tensor.numpy)
    clock: Clock
    waiting: bool

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in cls.READS and Queued.waiting:
            Queued.waiting = False
            Queued.clock.now += 10
        return super().__torch_function__(function, types, args, kwargs)


def test_waiting_for_the_step_itself_is_no_time_spent_on_pictures(timeline, clock):
    """On a card `play` is called while the step's work is still queued. Pictures of 10 ms then come with every step."""
    previewer, Queued.clock = Previewer(), clock
    pictures = pictures_of(timeline, Node(), previewer)
    draw = previewer.decode_latent_to_preview

    def ten_milliseconds(x0: torch.Tensor) -> Image.Image:
        picture = draw(x0)
        clock.now += 0.01
        return picture

    previewer.decode_latent_to_preview = ten_milliseconds
    for _ in range(25):  # steps that take 10 s until all their work is in the queue
        clock.now += 10
        Queued.waiting = True
        pictures.play((1, 2), latents_of(50, 100).as_subclass(Queued))

    assert previewer.calls == 2 * 25


@pytest.mark.parametrize(("taken", "seconds"), [(0.004, 0.8), (0.0001, 0.125)])
def test_pictures_are_sent_less_often_where_sampling_needs_the_processor(taken, seconds):
    assert filmstrip.pause(taken, period=0.125) == pytest.approx(seconds)


def test_a_picture_s_cost_is_that_of_drawing_and_of_encoding_it():
    drawn = []

    taken = filmstrip.cost(lambda: drawn.append(1) or Image.effect_noise((512, 512), 64))

    assert drawn == [1] and taken > 0


def test_previews_take_a_fiftieth_of_a_run_in_all():
    assert clips.SHARE + filmstrip.SHARE + filmstrip.SHARE <= 0.02


def test_a_finished_section_becomes_thumbnails_once(timeline):
    previewer = Previewer()
    pictures = pictures_of(timeline, Node(), previewer)

    pictures.keep(tuple(range(10, 19)), latents_of(*range(10, 19)))

    assert list(pictures.strip.thumbnails) == [frame for frame in pictures.strip.cells if frame >= 10]
    assert previewer.calls == len(pictures.strip.thumbnails)


def test_sections_that_were_there_already_count_as_done_but_not_for_the_time_left(clock):
    plan = Plan.of(4.8)
    timeline = Timeline.of(1 + plan.generated, {0: latents_of(0.1)})
    sections, said = plan.bind(timeline), []
    patcher = SimpleNamespace(load_device="cpu", model=SimpleNamespace(latent_format=None))

    with Progress(patcher, sections, [5] * 4, timeline, Length(timeline.frames), FPS, said.append) as progress:
        for section in sections[:2]:
            latents = latents_of(*[0.5] * 9)
            timeline.write(section.target, latents)
            progress.finish(section, latents)
        callback = progress.of(sections[2])
        clock.now += 20
        callback(0, latents, latents, 5)

    assert said == [
        "section 3 of 4: 1.23 to 2.43 s, step 0 of 5, 73 of 145 frames done",
        "section 3 of 4: 1.23 to 2.43 s, step 1 of 5, 73 of 145 frames done, 3 min 00 s left",
    ]
    assert (progress.bar.current, progress.bar.total) == (11, 20)


@pytest.mark.parametrize(
    ("restored", "sampled", "error", "last"),
    [
        (0, 2, None, "73 of 73 frames done in 1 min 20 s"),
        (1, 1, None, "73 of 73 frames done in 40 s"),
        (2, 0, None, "73 of 73 frames done"),
        (1, 0, InterruptProcessingException, "stopped: 37 of 73 frames done"),
        (0, 1, ValueError, "stopped: 37 of 73 frames done"),
    ],
)
def test_the_last_line_says_what_is_done(clock, restored, sampled, error, last):
    plan = Plan.of(2.4)
    timeline = Timeline.of(1 + plan.generated, {0: latents_of(0.1)})
    sections, said = plan.bind(timeline), []
    patcher = SimpleNamespace(load_device="cpu", model=SimpleNamespace(latent_format=None))

    with (
        suppress(error or ()),
        Progress(patcher, sections, [5, 5], timeline, Length(timeline.frames), FPS, said.append) as progress,
    ):
        for section in sections[: restored + sampled]:
            latents = latents_of(*[0.5] * 9)
            if section.number >= restored:
                progress.of(section)(4, latents, latents, 5)
                clock.now += 40
            timeline.write(section.target, latents)
            progress.finish(section, latents)
        if error:
            raise error("stop")

    assert said[-1] == last


@pytest.fixture
def temp(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path / "temp"


LONG = 1e6  # seconds that sampling goes on: there is time to decode anything


def fill(timeline: Timeline, clip: Clip, frames: range, level: float, left: float = LONG) -> None:
    timeline.write(frames, latents_of(*[level] * len(frames)))
    clip.add(frames, left)


def levels_of(video: Path) -> list[tuple[float, int]]:
    """Grey levels, 0..1, and how many frames have each, in the order of the video."""
    with av.open(str(video)) as container:
        levels = [round(frame.to_ndarray(format="gray").mean() / 255, 1) for frame in container.decode(video=0)]
    changes = [0, *(at for at in range(1, len(levels)) if levels[at] != levels[at - 1]), len(levels)]
    return [(levels[start], stop - start) for start, stop in pairwise(changes)]


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_the_clip_shows_what_is_finished_in_the_order_of_the_video(timeline, temp, clock, order):
    told = []
    sections = [(range(1, 10), 0.4), (range(10, 19), 0.8)][:: 1 if order == "forward" else -1]
    shown = []

    with Clip(VAE(), timeline, Length(timeline.frames), FPS, lambda event, data: told.append((event, data))) as clip:
        for frames, level in sections:
            fill(timeline, clip, frames, level)
            shown.append(levels_of(clip.file))

    assert shown[0] == ([(0.1, 1), (0.4, 36)] if order == "forward" else [(0.1, 1), (0.8, 36)])
    assert shown[1] == [(0.1, 1), (0.4, 36), (0.8, 36)]
    assert [event for event, _ in told] == [EVENT, EVENT]
    last = told[-1][1]
    assert [path.name for path in (temp / last["subfolder"]).iterdir()] == [last["filename"]]


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (Length(19, loop=True), [(0.4, 36), (0.8, 36)]),
        (Length(19, exact=50), [(0.1, 1), (0.4, 36), (0.8, 13)]),
        (Length(19, exact=9), [(0.1, 1), (0.4, 8)]),
    ],
    ids=["loop", "exact", "short"],
)
def test_the_clip_leaves_out_what_the_video_does_not_show(timeline, temp, clock, length, shown):
    with Clip(VAE(), timeline, length, FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(10, 19), 0.8)
        fill(timeline, clip, range(1, 10), 0.4)

        assert levels_of(clip.file) == shown


def test_sections_that_are_clips_of_their_own_are_decoded_apart(temp, clock):
    """One hidden frame, and two clips of nine, each with a single frame first: 33 frames of each, and 31 of a cut one."""
    timeline, vae = Timeline.of(19, {0: latents_of(0.1)}), VAE()

    with Clip(vae, timeline, Length(19, exact=64, apart=9, hidden=1), FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(1, 10), 0.4)
        one, decoded = levels_of(clip.file), list(vae.decoded)
        fill(timeline, clip, range(10, 19), 0.8)

        assert one == [(0.4, 33)] and levels_of(clip.file) == [(0.4, 33), (0.8, 31)]
    assert decoded == [1, 2, 8]  # the first two tell what frames cost; others follow the one before them
    assert vae.decoded[3:] == [9]


def test_a_vae_of_another_family_ends_the_preview(timeline, temp, clock, caplog):
    vae = VAE()
    vae.latent_channels = 48

    with Clip(vae, timeline, Length(timeline.frames), FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(1, 10), 0.4)

    assert not vae.decoded and not clip.file
    assert "preview_vae cannot show the video (vae is not that of the model" in caplog.text


def test_each_section_is_decoded_once(timeline, temp, clock):
    vae = VAE()

    with Clip(vae, timeline, Length(timeline.frames), FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(10, 19), 0.8)
        fill(timeline, clip, range(1, 10), 0.4)

    context = len(vae.decoded) - 1  # a frame before all but the start image, so that the next is four frames long
    assert sum(vae.decoded) == timeline.frames + context


def test_a_decode_takes_a_bounded_number_of_frames(temp, clock):
    timeline = Timeline.of(101, {0: latents_of(0.1)})
    vae, lengths = VAE(), []
    decode = vae.decode
    vae.decode = lambda latents: lengths.append(latents.shape[2]) or decode(latents)

    with Clip(vae, timeline, Length(timeline.frames), FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(1, 101), 0.4)

    assert max(lengths) <= 17
    assert levels_of(clip.file) == [(0.1, 1), (0.4, 400)]


def test_a_decode_asks_for_little_memory_so_that_the_model_stays_on_the_card(timeline, temp, clock):
    vae = VAE()

    with Clip(vae, timeline, Length(timeline.frames), FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(1, 10), 0.4)

    assert levels_of(clip.file) == [(0.1, 1), (0.4, 36)]
    assert max(vae.asked) <= 2**30


@pytest.mark.slow
@pytest.mark.parametrize("sections", [1, 4, 40])
@pytest.mark.parametrize("step", [0.1, 2.0, 30.0])
def test_a_clip_takes_a_share_of_the_run_however_short(temp, clock, sections, step):
    """What would take longer waits, and is shown with later sections; loading the VAE does not make frames seem costly."""
    timeline, vae = Timeline.of(1 + 9 * sections, {0: latents_of(0.1)}), VAE()
    decode = vae.decode

    def a_twentieth_of_a_second_for_each_frame(latents: torch.Tensor) -> torch.Tensor:
        clock.now += 0.05 * pixel_frames(latents.shape[2])
        return decode(latents)

    vae.decode = a_twentieth_of_a_second_for_each_frame
    with Clip(vae, timeline, Length(timeline.frames), FPS, lambda event, data: None) as clip:
        begun, sampling = clock.now, 25 * step * sections
        for section in range(sections):
            clock.now += 25 * step
            fill(timeline, clip, range(1 + 9 * section, 10 + 9 * section), 0.4, left=sampling * (1 - (section + 1) / sections))

    assert clip.spent == pytest.approx(clock.now - begun - sampling)
    unforeseen = 0.25  # the second decode, of five frames
    assert clip.spent <= clips.SHARE * (sampling + clip.spent) + unforeseen
    if clip.waiting and sampling > 100:
        assert clip.spent > 0.8 * clips.SHARE * sampling


def test_part_of_a_section_is_shown_where_there_is_no_time_for_more(timeline, temp, clock):
    vae = VAE()
    decode = vae.decode

    def a_second_for_each_frame(latents: torch.Tensor) -> torch.Tensor:
        clock.now += pixel_frames(latents.shape[2])
        return decode(latents)

    vae.decode = a_second_for_each_frame
    with Clip(vae, timeline, Length(timeline.frames), FPS, lambda event, data: None) as clip:
        fill(timeline, clip, range(10, 19), 0.8, left=19 / clips.SHARE)

        assert levels_of(clip.file) == [(0.1, 1), (0.8, 16)]  # 1 + 5 + 13 seconds

        fill(timeline, clip, range(1, 10), 0.4, left=1000 / clips.SHARE)

        assert levels_of(clip.file) == [(0.1, 1), (0.4, 36), (0.8, 36)]


def test_what_is_left_to_sample_is_counted_in_the_fastest_steps(clock):
    """Loading and compiling a model take no part in it, and nothing is known of it before two steps."""
    plan = Plan.of(2.4)
    timeline = Timeline.of(1 + plan.generated, {0: latents_of(0.1)})
    sections, told = plan.bind(timeline), []
    patcher = SimpleNamespace(load_device="cpu", model=SimpleNamespace(latent_format=None))
    latents = latents_of(*[0.5] * 9)

    with Progress(patcher, sections, [3, 10], timeline, Length(timeline.frames), FPS, lambda line: None) as progress:
        progress.clip = SimpleNamespace(add=lambda frames, left: told.append(left))
        callback = progress.of(sections[0])
        for step, seconds in enumerate((60, 4, 2)):
            clock.now += seconds
            callback(step, latents, latents, 3)
        progress.finish(sections[0], latents)

    assert told == [2 * 10]


def test_a_decode_that_fails_is_told_once_and_sampling_goes_on(timeline, temp, caplog):
    told = []

    with Clip(VAE(fail=True), timeline, Length(timeline.frames), FPS, lambda event, data: told.append(event)) as clip:
        for start, stop in runs((*range(1, 5), *range(6, 10))):
            fill(timeline, clip, range(start, stop), 0.4)

    assert [record.getMessage() for record in caplog.records] == [
        "FramePack: preview_vae cannot show the video (no memory is left); sampling continues without a preview"
    ]
    assert not told and not list(temp.iterdir())
