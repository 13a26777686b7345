"""A made video says so: in plain tags of every container and PNG, and signed where there is something to sign with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import av
import c2pa
import pytest
import torch
from PIL import Image
from support.certificates import credentials

from framepack_core.media import signing
from framepack_core.media.files import Numbered
from framepack_core.media.marking import Mark
from framepack_core.media.saving import save_video
from framepack_core.media.signing import Signer
from framepack_core.media.video import Encoding, Footage, write_video

FRAMES = 6
GRAPH = {"prompt": {"1": {"class_type": "Größe"}}, "workflow": {"nodes": []}}
MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
JOINED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
END = b"-----END CERTIFICATE-----\n"
KINDS = [("mp4", "h264"), ("mov", "h264"), ("mov", "prores")]


def footage() -> Footage:
    return Footage.of(torch.rand(FRAMES, 48, 64, 3, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def place(tmp_path) -> Numbered:
    return Numbered(tmp_path, "x")


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(*credentials(), version="1.2.3")


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0)]


def pngs(path: Path) -> list[Path]:
    return sorted(path.with_suffix("").iterdir())


# Tags


@pytest.mark.parametrize(("joined", "source"), [(False, MADE), (True, JOINED)])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_a_video_says_in_plain_tags_how_it_was_made(place, container, joined, source):
    path = save_video(place, footage(), Encoding(container=container), metadata=GRAPH, mark=Mark(joined))

    found = tags(path)
    assert found["comment"] == "AI-generated" and found["DigitalSourceType"] == source
    assert {name: json.loads(found[name]) for name in GRAPH} == GRAPH


@pytest.mark.parametrize("container", ["webm", "mkv"])
def test_matroska_s_names_are_in_capitals(place, container):
    path = save_video(place, footage(), Encoding(container=container), metadata=GRAPH, mark=Mark())

    found = tags(path)
    assert found["COMMENT"] == "AI-generated" and found["DIGITALSOURCETYPE"] == MADE
    assert {name: json.loads(found[name.upper()]) for name in GRAPH} == GRAPH


def test_so_does_every_picture(place):
    path = save_video(place, footage(), Encoding(), metadata=GRAPH, pngs=True, mark=Mark())

    assert len(pngs(path)) == FRAMES
    for picture in pngs(path):
        texts = Image.open(picture).text
        assert texts == {"comment": "AI-generated", "DigitalSourceType": MADE, **{name: texts[name] for name in GRAPH}}
        assert {name: json.loads(texts[name]) for name in GRAPH} == GRAPH


def test_the_mark_does_not_need_the_graph(place):
    path = save_video(place, footage(), Encoding(), mark=Mark())

    assert tags(path)["comment"] == "AI-generated" and "prompt" not in tags(path)


def test_a_tag_of_the_graph_does_not_hide_it(place):
    path = save_video(place, footage(), Encoding(), metadata={"comment": "mine"}, mark=Mark())

    assert tags(path)["comment"] == "AI-generated"


def test_without_a_mark_the_file_is_the_one_that_has_the_graph_only(place, tmp_path):
    path = save_video(place, footage(), Encoding(), metadata=GRAPH)

    write_video(tmp_path / "plain", footage(), Encoding(), texts={name: json.dumps(value) for name, value in GRAPH.items()})
    assert path.read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_mark_changes_no_frame(place):
    marked, plain = (save_video(place, footage(), Encoding(), mark=mark) for mark in (Mark(), None))

    assert packets(marked) == packets(plain)


# Signatures, as c2pa's own reader sees them


def read(path: Path) -> tuple[dict, set[str]]:
    """The manifest, and the codes of all that the reader finds wrong. Nobody trusts the tests' certificates."""
    with c2pa.Reader(path) as reader:
        results = reader.get_validation_results()
        wrong = {failure["code"] for failure in results["activeManifest"]["failure"]}
        return reader.get_active_manifest(), wrong - {"signingCredential.untrusted"}


def actions(manifest: dict) -> list[dict]:
    (found,) = [part["data"]["actions"] for part in manifest["assertions"] if part["label"].startswith("c2pa.actions")]
    return found


@pytest.mark.parametrize(("container", "codec"), KINDS)
@pytest.mark.parametrize(("joined", "source"), [(False, MADE), (True, JOINED)])
def test_a_signed_video_says_how_and_by_what_it_was_made(place, signer, container, codec, joined, source):
    path = save_video(place, footage(), Encoding(container=container, codec=codec), metadata=GRAPH, mark=Mark(joined, signer))

    manifest, wrong = read(path)
    (created,) = actions(manifest)
    assert wrong == set()
    assert created["action"] == "c2pa.created" and created["digitalSourceType"] == source
    for maker in (manifest["claim_generator_info"][0], created["softwareAgent"]):
        assert maker["name"] == "FramePack" and maker["version"] == "1.2.3"


@pytest.mark.parametrize(("container", "codec"), KINDS)
def test_signing_keeps_every_packet_and_every_tag(place, signer, container, codec):
    encoding = Encoding(container=container, codec=codec)

    signed, plain = (save_video(place, footage(), encoding, metadata=GRAPH, mark=Mark(signer=by)) for by in (signer, None))

    assert packets(signed) == packets(plain) and tags(signed) == tags(plain)
    assert len(packets(signed)) >= FRAMES


def test_every_picture_is_signed(place, signer):
    path = save_video(place, footage(), Encoding(), metadata=GRAPH, pngs=True, mark=Mark(signer=signer))

    for picture in pngs(path):
        manifest, wrong = read(picture)
        assert wrong == set() and actions(manifest)[0]["digitalSourceType"] == MADE
        assert json.loads(Image.open(picture).text["prompt"]) == GRAPH["prompt"]


@pytest.mark.parametrize("which", ["video", "picture"])
def test_a_changed_byte_shows(place, signer, which):
    path = save_video(place, footage(), Encoding(), pngs=True, mark=Mark(signer=signer))
    file = path if which == "video" else pngs(path)[0]
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)

    _, wrong = read(file)

    assert wrong == {"assertion.bmffHash.mismatch" if which == "video" else "assertion.dataHash.mismatch"}


@pytest.mark.parametrize("container", ["webm", "mkv"])
def test_what_c2pa_does_not_know_has_tags_only_and_says_so(place, signer, container):
    mark = Mark(signer=signer)

    path = save_video(place, footage(), Encoding(container=container), pngs=True, mark=mark)

    assert tags(path)["COMMENT"] == "AI-generated"
    assert mark.notes(path.suffix) == (
        f"not signed: C2PA does not know {container}, so only tags mark the video; choose mp4 or mov",
    )
    assert read(pngs(path)[0])[1] == set()


def test_nothing_is_said_of_what_is_signed_or_cannot_be_anyway(signer):
    assert Mark(signer=signer).notes(".mp4") == () and Mark().notes(".webm") == ()


def test_a_signed_file_is_complete_before_it_has_its_name(place, signer, monkeypatch):
    seen, sign = [], Signer.sign

    def watched(*arguments) -> None:
        sign(*arguments)
        seen.extend(os.listdir(place.folder))

    monkeypatch.setattr(Signer, "sign", watched)
    path = save_video(place, footage(), Encoding(), mark=Mark(signer=signer))

    assert len(seen) == 1 and seen[0].endswith(".part")
    assert os.listdir(place.folder) == [path.name]


# What cannot sign


def test_a_usable_key_is_found_usable(signer):
    Mark(signer=signer).require()
    Mark().require()


def refusal(certificates: bytes, key: bytes) -> str:
    with pytest.raises(ValueError, match=r"make others as docs/marking\.md says") as error:
        Mark(signer=Signer(certificates, key, "1")).require()
    return str(error.value)


def test_what_c2pa_refuses_is_known_before(signer):
    assert "does not match" in refusal(signer.certificates, credentials()[1])
    assert "not valid at time of signing" in refusal(*credentials(days=-0.5))
    assert "private key" in refusal(signer.certificates, b"no key")
    assert "certificate" in refusal(b"no certificate", signer.key)
    assert "self-signed" in refusal(
        b"-----BEGIN".join([b"", *reversed(signer.certificates.split(b"-----BEGIN")[1:])]), signer.key
    )


def test_so_is_a_missing_package(signer, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)

    with pytest.raises(ValueError, match=r"c2pa-python cannot be imported .*pip install c2pa-python"):
        Mark(signer=signer).require()


def test_a_file_is_not_signed_for_nobody(place, monkeypatch):
    monkeypatch.setattr(signing, "library", lambda: pytest.fail("c2pa is not needed"))

    save_video(place, footage(), Encoding(), pngs=True, mark=Mark())


def test_a_key_is_not_shown(signer):
    assert "PRIVATE" not in repr(Mark(signer=signer)) and "PRIVATE" not in refusal(signer.certificates, credentials()[1])


@pytest.mark.parametrize("error", [ValueError("c2pa-python says no"), OSError(28, "No space left on device")])
def test_a_signature_that_fails_in_the_end_costs_neither_video_nor_pictures(place, signer, monkeypatch, error):
    def fail(*arguments) -> None:
        raise error

    monkeypatch.setattr(Signer, "_write", fail)

    with pytest.raises(ValueError, match=r"x_00001_.mp4 is saved with its tags, but without a signature \(.*; make room"):
        save_video(place, footage(), Encoding(), pngs=True, mark=Mark(signer=signer))

    assert sorted(os.listdir(place.folder)) == ["x_00001_", "x_00001_.mp4"]
    path = place.folder / "x_00001_.mp4"
    assert tags(path)["comment"] == "AI-generated" and len(packets(path)) >= FRAMES and len(pngs(path)) == FRAMES


def test_a_cancel_while_it_is_signed_leaves_nothing(place, signer, monkeypatch):
    def cancel(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Signer, "_write", cancel)

    with pytest.raises(KeyboardInterrupt):
        save_video(place, footage(), Encoding(), pngs=True, mark=Mark(signer=signer))

    assert os.listdir(place.folder) == []
