"""FramePack_SaveVideo marks what it writes, in a real server: in tags, and signed where the user has put a key."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import av
import c2pa
import pytest
from PIL import Image
from support.certificates import credentials
from support.graph import DemoGraph, Outputs, Seen

from scripts.support.environment import ROOT
from scripts.support.server import PromptRefused, Server

MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
JOINED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


@pytest.fixture
def key_folder(server: Server) -> Iterator[Path]:
    """Where the user puts certificates and key; empty before and after each test."""
    folder = server.base / "user" / "__framepack" / "c2pa"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    for file in folder.iterdir():
        file.unlink()


def write_credentials(folder: Path, days: float = 1) -> None:
    certificates, key = credentials(days)
    (folder / "certificates.pem").write_bytes(certificates)
    (folder / "key.pem").write_bytes(key)


def saving(graph: DemoGraph, **options) -> Outputs:
    """The demo's start image as a video of two latent frames, saved."""
    images = graph.add("RepeatImageBatch", image=graph.image, amount=5)
    latent = graph.add("VAEEncode", pixels=images, vae=graph.vae)
    inputs = {"latent": latent, "vae": graph.vae, "fps": 30.0, "filename_prefix": "marked", "crf": 16}
    return graph.add("FramePack_SaveVideo", **inputs | options)


def saved(server: Server, graph: DemoGraph, node: Outputs, **run) -> Path:
    (shown,) = server.run(graph.prompt, **run)["outputs"][node.node]["images"]
    return server.base / shown["type"] / shown["subfolder"] / shown["filename"]


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def wrong(path: Path) -> set[str]:
    """What c2pa's reader finds wrong, apart from that nobody trusts the tests' certificates."""
    with c2pa.Reader(path) as reader:
        failures = reader.get_validation_results()["activeManifest"]["failure"]
    return {failure["code"] for failure in failures} - {"signingCredential.untrusted"}


def test_a_saved_video_and_its_pictures_say_that_they_are_made(graph, server):
    path = saved(server, graph, saving(graph, png_frames=True))

    for texts in (tags(path), Image.open(path.with_suffix("") / "frame_00001.png").text):
        assert texts["comment"] == "AI-generated" and texts["DigitalSourceType"] == MADE
        assert json.loads(texts["prompt"]), "the graph is beside it"


def test_core_s_save_video_keeps_the_tags(graph, server):
    stock = graph.add("SaveVideo", video=saving(graph), filename_prefix="stock", format="auto", codec="auto")

    assert tags(saved(server, graph, stock))["comment"] == "AI-generated"


def test_switched_off_nothing_is_said(graph, server):
    path = saved(server, graph, saving(graph, png_frames=True, mark_as_ai=False))

    for texts in (tags(path), Image.open(path.with_suffix("") / "frame_00001.png").text):
        assert "comment" not in texts and "DigitalSourceType" not in texts and json.loads(texts["prompt"])


@pytest.mark.parametrize("side", ["before", "after"])
def test_footage_that_is_joined_makes_it_a_composite(graph, server, side):
    original = graph.add("CreateVideo", images=graph.add("RepeatImageBatch", image=graph.image, amount=5), fps=30.0)

    path = saved(server, graph, saving(graph, **{side: original}))

    assert tags(path)["comment"] == "AI-generated" and tags(path)["DigitalSourceType"] == JOINED


def test_with_a_key_the_file_and_its_pictures_are_signed(graph, server, key_folder):
    write_credentials(key_folder)

    path = saved(server, graph, saving(graph, png_frames=True))

    assert wrong(path) == wrong(path.with_suffix("") / "frame_00005.png") == set()
    with c2pa.Reader(path) as reader:
        manifest = reader.get_active_manifest()
    maker = manifest["claim_generator_info"][0]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (maker["name"], maker["version"]) == ("FramePack", version) and MADE in json.dumps(manifest)
    assert json.loads(tags(path)["prompt"]) and "PRIVATE KEY" not in server.log.read_text(encoding="utf-8", errors="replace")


def test_a_container_that_cannot_be_signed_is_named_in_the_node(graph, server, key_folder):
    write_credentials(key_folder)
    node, seen = saving(graph, container="webm"), Seen()

    path = saved(server, graph, node, on_message=seen)

    assert tags(path)["COMMENT"] == "AI-generated"
    assert seen.texts(node) == ["not signed: C2PA does not know webm, so only tags mark the video; choose mp4 or mov"]


@pytest.mark.parametrize(("name", "missing"), [("certificates.pem", "key.pem"), ("key.pem", "certificates.pem")])
def test_half_of_what_a_signature_needs_is_refused_before_anything_runs(graph, server, key_folder, name, missing):
    write_credentials(key_folder)
    (key_folder / missing).unlink()
    saving(graph)

    with pytest.raises(PromptRefused, match=f"FramePack_SaveVideo: .*c2pa has {name} but no {missing}; put it there"):
        server.queue(graph.prompt)


def test_so_are_certificates_that_have_run_out(graph, server, key_folder):
    write_credentials(key_folder, days=-0.5)
    saving(graph)

    with pytest.raises(PromptRefused, match=r"FramePack_SaveVideo: certificates.pem and key.pem in .*c2pa cannot be used: .*"
                                            r"not valid at time of signing; make others as docs/marking.md says"):  # fmt: skip
        server.queue(graph.prompt)


def test_unless_nothing_is_to_be_marked(graph, server, key_folder):
    write_credentials(key_folder, days=-0.5)

    path = saved(server, graph, saving(graph, mark_as_ai=False))

    assert "comment" not in tags(path)


@pytest.mark.slow
def test_comfyui_s_flag_leaves_out_the_graph_and_not_the_mark(graph, new_server):
    node = saving(graph, png_frames=True)

    path = saved(new_server("--disable-metadata"), graph, node)

    for texts in (tags(path), Image.open(path.with_suffix("") / "frame_00001.png").text):
        assert texts["comment"] == "AI-generated" and texts["DigitalSourceType"] == MADE and "prompt" not in texts
