"""FramePack_SaveVideo in a real server: what the file holds, and that it is complete or not there at all."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import av
import numpy
import pytest
from support.graph import DEMO_SEED, DemoGraph, Outputs, Seen

from scripts.support.server import Json, PromptRefused, RunFailed, Server

PREFIX = "saved"


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


def saving(graph: DemoGraph, frames: int = 9, **options) -> Outputs:
    """The demo's start image as a video of this many latent frames, saved."""
    images = graph.add("RepeatImageBatch", image=graph.image, amount=4 * frames - 3)
    latent = graph.add("VAEEncode", pixels=images, vae=graph.vae)
    inputs = {"latent": latent, "vae": graph.vae, "fps": 30.0, "filename_prefix": PREFIX, "crf": 16}
    return graph.add("FramePack_SaveVideo", **inputs | options)


def saved_file(server: Server, entry: Json, node: Outputs) -> Path:
    (shown,) = entry["outputs"][node.node]["images"]
    return server.base / shown["type"] / shown["subfolder"] / shown["filename"]


def pictures(path: Path) -> numpy.ndarray:
    with av.open(str(path)) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return container.metadata


def psnr(found: numpy.ndarray, expected: numpy.ndarray) -> float:
    """dB, of uint8 pixels."""
    return -10 * numpy.log10(numpy.mean((found / 255 - expected / 255) ** 2))


def test_the_video_shows_what_decode_shows(graph, server):
    expected = DemoGraph().video(server)
    inputs = {"latent": graph.sampler(), "vae": graph.vae, "fps": 30.0, "filename_prefix": PREFIX, "crf": 4}
    node = graph.add("FramePack_SaveVideo", **inputs)
    seen = Seen()
    entry = server.run(graph.prompt, on_message=seen)

    found = pictures(saved_file(server, entry, node))

    assert found.shape == expected.shape == (37, 128, 128, 3)
    assert psnr(found, expected) > 30
    assert seen.steps(node)[-1] == (37, 37)


def test_the_server_fills_in_a_name_that_no_front_end_has_filled_in(graph, server):
    node = saving(graph, filename_prefix="%date:yyyy%/%FramePack_DemoImage.seed%")

    path = saved_file(server, server.run(graph.prompt), node)

    folder = server.base / "output" / str(datetime.now().year)
    assert path == folder / f"{DEMO_SEED}_00001_.mp4"


@pytest.mark.parametrize("prefix", ["../elsewhere", "/elsewhere/x", "a/../../x"])
def test_a_name_out_of_the_output_folder_is_refused_before_anything_runs(graph, server, prefix):
    saving(graph, filename_prefix=prefix)

    with pytest.raises(PromptRefused, match=r"FramePack_SaveVideo: filename_prefix is .* leads out of the output folder"):
        server.queue(graph.prompt)


def test_the_file_brings_the_graph_back(graph, server):
    node = saving(graph)

    path = saved_file(server, server.run(graph.prompt), node)

    assert json.loads(tags(path)["prompt"])[node.node]["class_type"] == "FramePack_SaveVideo"


@pytest.mark.slow
def test_comfyui_s_flag_leaves_the_graph_out(graph, new_server):
    node = saving(graph, png_frames=True)
    server = new_server("--disable-metadata")

    path = saved_file(server, server.run(graph.prompt), node)

    assert "prompt" not in tags(path) and len(pictures(path)) == 33


def test_save_video_takes_it_as_it_is(graph, server):
    """Packet by packet: it is neither re-encoded nor held in memory."""
    ours = saving(graph, pixel_format="yuv444p", filename_prefix="video/ours")
    stock = graph.add("SaveVideo", video=ours, filename_prefix="stock", format="auto", codec="auto")

    entry = server.run(graph.prompt)

    packets = []
    for node in (ours, stock):
        with av.open(str(saved_file(server, entry, node))) as container:
            packets.append([bytes(packet) for packet in container.demux(video=0)])
    assert packets[0] == packets[1] and len(packets[0]) >= 33


def test_sound_and_pngs_beside_it(graph, server):
    audio = graph.add("EmptyAudio", duration=0.5, sample_rate=44100, channels=2)
    node = saving(graph, audio=audio, png_frames=True, blending="linear")

    path = saved_file(server, server.run(graph.prompt), node)

    with av.open(str(path)) as container:
        assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) == pytest.approx(0.5, abs=0.1)
    assert len(list(path.with_suffix("").glob("frame_*.png"))) == 33


@pytest.mark.slow
def test_cancel_leaves_nothing_half_written(graph, server):
    node = saving(graph, frames=400, filename_prefix="cancelled/video", png_frames=True)

    class Cancel(Seen):
        def __call__(self, message) -> None:
            super().__call__(message)
            if len(self.steps(node)) == 2:
                server.interrupt()

    with pytest.raises(RunFailed) as failure:
        server.run(graph.prompt, on_message=Cancel())

    assert failure.value.interrupted
    assert list((server.base / "output" / "cancelled").iterdir()) == []


def test_a_bad_latent_is_refused_by_name(graph, server):
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    graph.add("FramePack_SaveVideo", latent=latent, vae=graph.vae, fps=30.0, filename_prefix=PREFIX, crf=16)

    with pytest.raises(RunFailed) as failure:
        server.run(graph.prompt)

    assert "FramePack_SaveVideo: latent has shape (1, 4, 8, 8), expected (B, 16, T, H, W)" in failure.value.message


# Nothing is replaced, and what can be known is known before the first frame


class WhenDecoding(Seen):
    """`do` is called once, when the first frames are there."""

    def __init__(self, node: Outputs, do: Callable[[], object]) -> None:
        super().__init__()
        self.node, self.do, self.done = node, do, False

    def __call__(self, message) -> None:
        super().__call__(message)
        if not self.done and self.steps(self.node):
            self.done = True
            self.do()


@pytest.mark.slow
def test_a_file_that_another_program_finishes_meanwhile_stays(graph, server):
    node = saving(graph, frames=400, filename_prefix="shared/x", png_frames=True)
    other = server.base / "output" / "shared" / "x_00001_.mp4"
    meanwhile = WhenDecoding(node, lambda: other.write_bytes(b"other"))

    path = saved_file(server, server.run(graph.prompt, on_message=meanwhile), node)

    assert meanwhile.done and other.read_bytes() == b"other"
    assert path == other.with_name("x_00002_.mp4") and len(pictures(path)) == 1597
    assert sorted(file.name for file in other.parent.iterdir()) == ["x_00001_.mp4", "x_00002_", "x_00002_.mp4"]


def sound(server: Server, name: str, rate: int, samples: numpy.ndarray) -> str:
    """A WAV file of floats in the input folder."""
    path = server.base / "input" / f"{name}.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(numpy.float32), format="flt", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.name


@pytest.mark.parametrize(
    ("rate", "wrong"), [(4000, 0.0), (40000, 0.0), (44100, numpy.nan), (176400, numpy.inf), (192000, 0.0), (48000, 1e30)]
)
def test_sound_of_any_rate_and_any_samples_is_heard(graph, server, rate, wrong):
    samples = numpy.sin(2 * numpy.pi * 440 * numpy.arange(rate) / rate) / 2
    samples[::100] = wrong
    audio = graph.add("LoadAudio", audio=sound(server, f"{rate}_{wrong}", rate, samples))
    node = saving(graph, audio=audio)

    path = saved_file(server, server.run(graph.prompt), node)

    with av.open(str(path)) as container:
        heard = numpy.concatenate([part.to_ndarray() for part in container.decode(audio=0)], axis=1)
    assert numpy.isfinite(heard).all() and abs(heard).max() > 0.1


def refusal(server: Server, graph: DemoGraph, node: Outputs) -> str:
    """The error, once it is sure that nothing was decoded."""
    seen = Seen()
    with pytest.raises(RunFailed) as failure:
        server.run(graph.prompt, on_message=seen)
    assert seen.steps(node) == []
    return failure.value.message


@pytest.mark.parametrize("prefix", [78 * "写", 244 * "a"], ids=["Chinese", "letters"])
def test_a_long_name_is_as_good_as_a_short_one(graph, server, prefix):
    node = saving(graph, filename_prefix=prefix, png_frames=True)

    path = saved_file(server, server.run(graph.prompt), node)

    assert path.name == f"{prefix}_00001_.mp4" and len(pictures(path)) == 33


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (245 * "a", r"\(File name too long\); choose a shorter name"),
        (f"new/{70 * '😀'}", r"\(File name too long\); choose a shorter name"),
        (f"{300 * 'a'}/x", r"\(File name too long\); choose a shorter name"),
        ("new/" * 1100, r"\(File name too long\); choose a shorter name"),
        ("a file/x", r"\(Not a directory\); a file has the name of that folder"),
        ("a\0b", "with a character that no file name has; remove it"),
        ("a\ud800b", "with a character that no file name has; remove it"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_runs(graph, server, prefix, message):
    (server.base / "output").mkdir(exist_ok=True)
    (server.base / "output" / "a file").touch()
    saving(graph, filename_prefix=prefix)

    with pytest.raises(PromptRefused, match="FramePack_SaveVideo: filename_prefix is .*" + message):
        server.queue(graph.prompt)


# Containers, codecs and the videos around


@pytest.mark.parametrize(
    ("chosen", "suffix"), [({"codec": "vp9"}, "webm"), ({"container": "mkv"}, "mkv"), ({"codec": "prores"}, "mov")]
)
def test_another_container_brings_the_graph_back_too(graph, server, chosen, suffix):
    node = saving(graph, filename_prefix=f"kinds/{suffix}", **chosen)

    path = saved_file(server, server.run(graph.prompt), node)

    assert path.name == f"{suffix}_00001_.{suffix}" and len(pictures(path)) == 33
    graph_back = {name.lower(): text for name, text in tags(path).items()}
    assert json.loads(graph_back["prompt"])[node.node]["class_type"] == "FramePack_SaveVideo"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"container": "webm", "codec": "h264"},
            "codec is h264, which container webm cannot hold; choose container mp4",
        ),
        (
            {"container": "mp4", "codec": "prores"},
            "codec is prores, which container mp4 cannot hold; choose container mkv",
        ),
        ({"codec": "av1", "pixel_format": "yuv444p"}, "pixel_format is yuv444p, but av1 is written in yuv420p or yuv420p10le"),
        ({"container": "avi"}, "container is 'avi'; choose one of auto, mp4, webm, mkv, mov"),
        ({"pixel_format": "rgb24"}, "pixel_format is rgb24; choose one of yuv420p, yuv444p, yuv420p10le"),
        ({"container": "webm", "filename_prefix": 244 * "a"}, "File name too long"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_runs(graph, server, chosen, message):
    saving(graph, **chosen)

    with pytest.raises(PromptRefused, match=f"FramePack_SaveVideo: .*{message}"):
        server.queue(graph.prompt)


def original(server: Server, name: str, count: int, sound: bool = False) -> numpy.ndarray:
    """A lossless video in the input folder whose frames become lighter, and its frames."""
    frames = numpy.stack([numpy.full((128, 128, 3), 40 + 4 * number % 200, numpy.uint8) for number in range(count)])
    path = server.base / "input" / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "bgr0"
        track = container.add_stream("pcm_f32le", rate=8000, layout="mono") if sound else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
        if track is not None:
            samples = numpy.full((1, 8000 * count // 30), 0.5, numpy.float32)
            part = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            part.sample_rate = 8000
            container.mux(track.encode(part))
    return frames


@pytest.mark.parametrize(("side", "at"), [("before", "start"), ("after", "end")])
def test_an_extended_video_is_saved_with_its_original(graph, server, side, at):
    """Of 30 frames, Place takes 29; the plan makes 36, and all of the original is there once, in time with its sound."""
    frames = original(server, f"{side}.mkv", 30, sound=True)
    loaded = graph.add("LoadVideo", file=f"{side}.mkv")
    parts = graph.add("GetVideoComponents", video=loaded)
    placed = graph.add(
        "FramePack_Place", images=parts, vae=graph.vae, at=at, seconds=0.0, use="fixed", base_resolution=128, fps=parts[2]
    )
    latent = graph.sampler(start_latent=None, clip_vision_output=None, frames=placed)
    inputs = {"latent": latent, "vae": graph.vae, "fps": 30.0, "filename_prefix": f"joined/{side}", "crf": 4, "crossfade": 4}
    node = graph.add("FramePack_SaveVideo", **inputs, **{side: loaded})
    seen = Seen()

    path = saved_file(server, server.run(graph.prompt, on_message=seen), node)

    found, decoded = pictures(path), graph.frames(server, graph.add("FramePack_Decode", latent=latent, vae=graph.vae))
    new = 36 if side == "before" else 32  # the first latent frame of a video without a start is one frame
    assert len(found) == 30 + new and seen.steps(node)[-1] == (30 + new, 30 + new)
    known, rest = (found[:30], found[30:]) if side == "before" else (found[new:], found[:new])
    own = decoded[-new:] if side == "before" else decoded[:new]
    away = slice(0, 26) if side == "before" else slice(4, 30)
    assert psnr(known[away], frames[away]) > 38 and psnr(rest, own) > 30
    with av.open(str(path)) as container:
        heard = [(part.time, float(part.to_ndarray().mean())) for part in container.decode(audio=0)]
    middle = 0.5 if side == "before" else new / 30 + 0.5
    assert min(value for time, value in heard if abs(time - middle) < 0.2) == pytest.approx(0.5, abs=0.05)
    silent = [value for time, value in heard if (time < new / 30 - 0.3 if side == "after" else time > 1.3)]
    assert all(abs(value) < 0.05 for value in silent)


def test_what_fills_the_gap_between_two_originals_is_saved_with_both(graph, server):
    """All 30 frames of each are there once; of the 36 in the gap the last gives way to the first of the later original."""
    loaded, originals, frames = {}, {}, None
    for side, at in (("before", "start"), ("after", "end")):
        originals[side] = original(server, f"both {side}.mkv", 30)
        loaded[side] = graph.add("LoadVideo", file=f"both {side}.mkv")
        images = graph.add("GetVideoComponents", video=loaded[side])
        inputs = {"images": images, "vae": graph.vae, "at": at, "seconds": 0.0, "use": "fixed", "base_resolution": 128}
        frames = graph.add("FramePack_Place", **inputs, **({} if frames is None else {"frames": frames}))
    latent = graph.sampler(start_latent=None, clip_vision_output=None, frames=frames)
    inputs = {"latent": latent, "vae": graph.vae, "fps": 30.0, "filename_prefix": "joined/both", "crf": 4, "crossfade": 4}
    node = graph.add("FramePack_SaveVideo", **inputs, **loaded)

    found = pictures(saved_file(server, server.run(graph.prompt), node))

    assert len(found) == 30 + 35 + 30
    assert psnr(found[:26], originals["before"][:26]) > 38 and psnr(found[-26:], originals["after"][-26:]) > 38


def test_a_redone_section_is_not_taken_for_a_part_of_the_original(graph, server):
    """All but one section stays when it is made again, but only the clip was given."""
    frames = original(server, "redone.mkv", 200)
    loaded = graph.add("LoadVideo", file="redone.mkv")
    parts = graph.add("GetVideoComponents", video=loaded)
    clip = graph.add("ImageFromBatch", image=parts, batch_index=171, length=29)
    placed = graph.add(
        "FramePack_Place", images=clip, vae=graph.vae, at="start", seconds=0.0, use="fixed", base_resolution=128, fps=parts[2]
    )
    plan = graph.plan_of(2)
    first = graph.sampler(plan=plan, start_latent=None, clip_vision_output=None, frames=placed)
    again = graph.add("FramePack_Redo", latent=first, plan=plan, sections="1")
    latent = graph.sampler(plan=again, frames=again[1], start_latent=None, clip_vision_output=None, seed=2)
    node = saving(graph, latent=latent, before=loaded, filename_prefix="redone")

    path = saved_file(server, server.run(graph.prompt), node)

    assert len(pictures(path)) == len(frames) + 2 * 36


def test_a_clip_that_is_shorter_than_what_was_given_is_refused_before_a_frame_is_decoded(graph, server):
    original(server, "short.mkv", 4)
    images = graph.add("RepeatImageBatch", image=graph.image, amount=9)
    placed = graph.add(
        "FramePack_Place", images=images, vae=graph.vae, at="start", seconds=0.0, use="fixed", base_resolution=128
    )
    latent = graph.sampler(start_latent=None, clip_vision_output=None, frames=placed)
    node = saving(graph, latent=latent, before=graph.add("LoadVideo", file="short.mkv"))

    message = refusal(server, graph, node)

    assert "FramePack_SaveVideo: before has 4 frames at 30 fps, but the latent begins with 9 of a clip" in message


def test_a_hard_cut_is_said_in_the_node(graph, server):
    original(server, "cut.mkv", 10)
    node, seen = saving(graph, before=graph.add("LoadVideo", file="cut.mkv")), Seen()

    path = saved_file(server, server.run(graph.prompt, on_message=seen), node)

    assert len(pictures(path)) == 10 + 33
    (said,) = seen.texts(node)
    assert said.startswith("before: a hard cut, since the latent does not say which of its frames were given")
