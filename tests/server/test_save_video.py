"""FramePack_SaveVideo in a real server: what the file holds, and that it is complete or not there at all."""

import json
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


def test_a_name_out_of_the_output_folder_is_refused_before_anything_runs(graph, server):
    saving(graph, filename_prefix="../elsewhere")

    with pytest.raises(PromptRefused, match=r"FramePack_SaveVideo: filename_prefix is .* leads out of the output folder"):
        server.queue(graph.prompt)


def test_the_file_brings_the_graph_back(graph, server):
    node = saving(graph)

    path = saved_file(server, server.run(graph.prompt), node)

    assert json.loads(tags(path)["prompt"])[node.node]["class_type"] == "FramePack_SaveVideo"


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
