"""FramePack Measure Video in a real ComfyUI: a file, its frames, and the video of a sampler."""

import numpy
import pytest
from PIL import Image
from support.example_video import FRAMES, example_frames
from support.graph import Graph, Outputs, Seen

from framepack_core.measures.report import Report
from framepack_core.measures.series import Series
from scripts.support.server import Prompt, RunFailed, Server


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


@pytest.fixture
def loaded(graph) -> Outputs:
    return graph.add("LoadVideo", file="example.mp4")


def measured(graph: Graph, server: Server, **inputs) -> tuple[str, numpy.ndarray]:
    """The table, whose words the node shows too, and the plot."""
    node, seen = graph.add("FramePack_MeasureVideo", **{"latent_window": 4, **inputs}), Seen()
    shown, drawn = graph.add("PreviewAny", source=node), graph.add("PreviewImage", images=node[1])
    entry = server.run(graph.prompt, on_message=seen)
    (table,), (plot,) = entry["outputs"][shown.node]["text"], entry["outputs"][drawn.node]["images"]
    said = "\n".join(seen.texts(node)).splitlines()
    assert len(said) > 3 and set(said) <= set(table.splitlines())
    picture = Image.open(server.base / plot["type"] / plot["subfolder"] / plot["filename"])
    return table, numpy.asarray(picture.convert("RGB"))


def test_a_file_is_measured_as_its_frames_are(graph, server, loaded):
    """A file loses some colour to its format: what is compared is ComfyUI's own reading of it."""
    table, plot = measured(graph, server, video=loaded)
    images, _ = measured(graph, server, images=graph.add("GetVideoComponents", video=loaded), fps=30.0)
    truth = Report(Series.of(example_frames()), 30, 4)

    assert table.splitlines()[0].startswith(f"{FRAMES} frames of 128x128, 1.37 s at 30 fps") and table == images
    (lightness,) = (line.split()[4] for line in table.splitlines() if line.startswith("lightness"))
    assert float(lightness) == pytest.approx(float(truth.series.ends("lab_mean")[0][0]), abs=1)
    assert plot.shape[1] == 1200 and len(numpy.unique(plot.reshape(-1, 3), axis=0)) > 8


def test_images_have_the_rate_that_is_given(graph, server, loaded):
    images = graph.add("GetVideoComponents", video=loaded)

    table, _ = measured(graph, server, images=images, fps=15.0)

    assert table.splitlines()[0].startswith(f"{FRAMES} frames of 128x128, 2.73 s at 15 fps")
    assert "joins" in table and "sections guessed as after a start image" in table


def test_a_made_video_has_a_join_for_each_section_after_the_first(graph, server):
    saved = graph.add(
        "FramePack_SaveVideo",
        latent=graph.sampler(plan=graph.plan_of(3)),
        vae=graph.vae,
        fps=30.0,
        filename_prefix="measured",
        crf=16,
    )
    node, seen = graph.add("FramePack_MeasureVideo", video=saved, latent_window=9), Seen()

    server.run(graph.prompt, on_message=seen)

    assert "2 of sections after a start image" in "\n".join(seen.texts(node))


@pytest.mark.parametrize(
    ("connected", "message"),
    [
        ((), "FramePack_MeasureVideo: neither images nor video is connected"),
        (("images", "video"), "FramePack_MeasureVideo: images and video are both connected"),
        (("picture",), "FramePack_MeasureVideo: a video of fewer than two frames has no start and end to compare"),
    ],
)
def test_what_cannot_be_measured_is_refused(graph, server, loaded, connected, message):
    inputs = {"video": loaded, "images": graph.add("GetVideoComponents", video=loaded), "picture": graph.image}
    prompt: Prompt = graph.prompt
    graph.add(
        "FramePack_MeasureVideo",
        latent_window=9,
        **{"images" if name == "picture" else name: inputs[name] for name in connected},
    )

    with pytest.raises(RunFailed, match=message):
        server.run(prompt)
