"""The doctor's judgement of model files, of which it reads the first bytes only."""

import json
from pathlib import Path

import pytest

from framepack_core.weights.names import MARK
from framepack_core.weights.stored import Unreadable, read_header, require_whole
from scripts.support.doctor import models
from scripts.support.doctor.findings import Finding
from scripts.support.doctor.headers import formats
from scripts.support.doctor.models import Linked

COMFYUI = {MARK: 64, "double_blocks.0.img_attn.qkv.weight": 128}
NORM = "transformer_blocks.0.norm1.linear.weight"
OFFICIAL = {MARK: 64, NORM: 128}
HELIOS = {"patch_short.weight": 64, "condition_embedder.time_proj.weight": 128}
PUBLISHED = Linked("FramePackI2V.safetensors", "diffusion_models", "https://example.org/FramePackI2V.safetensors")
VAE = Linked("vae.safetensors", "vae", "https://example.org/vae.safetensors")
WAN_VAE = Linked("wan_vae.safetensors", "vae", "https://example.org/wan_vae.safetensors", "Helios")


def safetensors(path: Path, tensors: dict[str, int], dtype: str = "BF16", metadata: dict[str, str] | None = None) -> Path:
    """A file with tensors of so many bytes."""
    entries, end = {}, 0
    for key, size in tensors.items():
        entries[key] = {"dtype": dtype, "shape": [size // 2], "data_offsets": [end, end + size]}
        end += size
    header = json.dumps({"__metadata__": metadata or {}} | entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    return path


def cut(path: Path, lost: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-lost])


def shards(folder: Path, files: dict[str, dict[str, int]]) -> Path:
    """A folder as the official one: an index, and the weights in several files."""
    for name, tensors in files.items():
        safetensors(folder / name, tensors)
    index = {"weight_map": {key: name for name, tensors in files.items() for key in tensors}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    for kind in models.KINDS:
        (tmp_path / kind).mkdir()
    return tmp_path


def files(folder: Path) -> list[models.File]:
    return models.all_files({kind: [folder / kind] for kind in models.KINDS})


def checkpoints(folder: Path, linked=(PUBLISHED,)) -> list[Finding]:
    return list(models.checkpoints(linked, files(folder)))


# Headers


def test_a_header_is_read_without_the_tensors(tmp_path):
    path = safetensors(tmp_path / "a.safetensors", COMFYUI, metadata={"format": "pt"})

    header = read_header(path)

    assert list(header.tensors) == list(COMFYUI)
    assert header.metadata == {"format": "pt"}
    assert header.nbytes == path.stat().st_size
    require_whole(path, header)


def test_a_file_that_is_cut_off_or_too_long_is_not_whole(tmp_path):
    path = safetensors(tmp_path / "a.safetensors", COMFYUI)
    cut(path)
    with pytest.raises(Unreadable, match=r"cut off: .* bytes are there"):
        require_whole(path, read_header(path))

    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(Unreadable, match="its header says"):
        require_whole(path, read_header(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"<!DOCTYPE html><html>not found</html>",
        (10**6).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (16).to_bytes(8, "little") + b'{"a": {"b": 0}} ',
    ],
)
def test_what_is_no_safetensors_file_is_unreadable(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)

    with pytest.raises(Unreadable):
        read_header(path)


def test_formats_are_those_of_comfyui_or_the_dtypes(tmp_path):
    layers = {"layers": {"a": {"format": "nvfp4"}, "b": {"format": "nvfp4"}, "c": {"format": "float8_e4m3fn"}}}
    named = safetensors(tmp_path / "a.safetensors", COMFYUI, "U8", {"_quantization_metadata": json.dumps(layers)})
    plain = safetensors(tmp_path / "b.safetensors", COMFYUI, "F8_E4M3")
    scaled = safetensors(tmp_path / "c.safetensors", COMFYUI | {"scaled_fp8": 2}, "F8_E4M3")

    assert formats(named, read_header(named)) == ["nvfp4", "float8_e4m3fn"]
    assert formats(plain, read_header(plain)) == ["F8_E4M3"]
    assert formats(scaled, read_header(scaled)) == ["F8_E4M3 with scales"]


# Checkpoints


@pytest.mark.parametrize(("tensors", "naming"), [(COMFYUI, "ComfyUI's names"), (OFFICIAL, "official names")])
def test_a_whole_checkpoint_is_described(folder, tensors, naming):
    safetensors(folder / "diffusion_models" / "mine" / "model.safetensors", tensors)

    (found,) = checkpoints(folder)

    assert (found.what, found.status) == ("diffusion_models/mine/model.safetensors", "ok")
    assert found.value.startswith(f"FramePack, {naming}, BF16")


def test_a_checkpoint_of_helios_is_one_too(folder):
    safetensors(folder / "diffusion_models" / "Helios-Base.safetensors", HELIOS)

    (found,) = checkpoints(folder)

    assert (found.status, found.value) == ("ok", "Helios, official names, BF16, 0.0 GB")


def test_a_checkpoint_that_is_cut_off_is_a_fault(folder):
    cut(safetensors(folder / "diffusion_models" / PUBLISHED.name, COMFYUI))

    found = checkpoints(folder)

    assert [finding.status for finding in found if "cut off" in finding.value] == ["fault"]
    assert "download it again" in found[0].remedy


def test_other_models_are_counted_and_not_described(folder):
    safetensors(folder / "diffusion_models" / "flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": 8})
    safetensors(folder / "diffusion_models" / PUBLISHED.name, COMFYUI)

    described, counted = checkpoints(folder)

    assert described.what.endswith(PUBLISHED.name)
    assert counted.value.startswith("1 beside those of FramePack and Helios")


def test_another_model_that_is_called_framepack_is_warned_of(folder):
    safetensors(folder / "diffusion_models" / "framepack_lora.safetensors", {"lora_A.weight": 8})

    found = checkpoints(folder)[0]

    assert (found.status, "lora_A.weight" in found.value) == ("warning", True)


def test_a_checkpoint_in_a_folder_of_another_kind_is_to_be_moved(folder):
    safetensors(folder / "vae" / "model.safetensors", COMFYUI)

    found = {finding.what: finding for finding in checkpoints(folder)}

    assert "move it to models/diffusion_models" in found["vae/model.safetensors"].remedy


def test_without_a_checkpoint_it_says_what_to_download(folder):
    (found,) = checkpoints(folder)

    assert (found.value, found.status) == ("not there", "warning")
    assert PUBLISHED.url in found.remedy


def test_an_unfinished_download_of_the_checkpoint_is_recognised(folder):
    (folder / "diffusion_models" / f"{PUBLISHED.name}.crdownload").write_bytes(bytes(10))

    (found,) = checkpoints(folder)

    assert found.value.endswith("is an unfinished download")


@pytest.fixture
def sharded(folder) -> Path:
    parts = {"a-1-of-2.safetensors": {MARK: 64}, "a-2-of-2.safetensors": {NORM: 128}}
    return shards(folder / "diffusers" / "FramePackI2V_HY", parts)


def test_a_folder_of_shards_is_one_checkpoint(folder, sharded):
    (found,) = checkpoints(folder)

    assert (found.what, found.status) == ("diffusers/FramePackI2V_HY/", "ok")
    assert "official names, BF16, 2 shards" in found.value


def test_a_missing_shard_is_named(folder, sharded):
    (sharded / "a-2-of-2.safetensors").unlink()

    found = checkpoints(folder)[0]

    assert (found.status, found.value) == ("fault", "lacks 1 of 2 shards: a-2-of-2.safetensors")


def test_a_shard_that_is_cut_off_is_named(folder, sharded):
    cut(sharded / "a-2-of-2.safetensors")

    found = checkpoints(folder)[0]

    assert found.status == "fault"
    assert found.value.startswith("a-2-of-2.safetensors is cut off")


def test_a_weight_that_the_index_promises_and_no_shard_has_is_named(folder, sharded):
    safetensors(sharded / "a-2-of-2.safetensors", {"other": 8})

    found = checkpoints(folder)[0]

    assert (found.status, f"first {NORM}" in found.value) == ("fault", True)


def test_a_damaged_index_is_a_fault_and_another_model_s_folder_is_left_out(folder):
    shards(folder / "diffusers" / "other", {"a.safetensors": {"time_embed.weight": 8}})
    assert [finding.value for finding in checkpoints(folder)] == ["not there"]

    (folder / "diffusers" / "other" / "diffusion_pytorch_model.safetensors.index.json").write_text("{")
    assert checkpoints(folder)[0].status == "fault"


def write_gguf(path: Path) -> Path:
    gguf, numpy = pytest.importorskip("gguf"), pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(path, "hyvid")
    for key in COMFYUI:
        quantised = gguf.quants.quantize(numpy.ones((4, 32), numpy.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(key, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_is_described_by_its_types(folder):
    write_gguf(folder / "diffusion_models" / "FramePack_Q8_0.gguf")

    (found,) = checkpoints(folder)

    assert (found.status, found.value) == ("ok", "FramePack, GGUF Q8_0, 0.0 GB")


@pytest.mark.parametrize("lost", [40, 1000])
def test_a_gguf_that_is_cut_off_is_a_fault(folder, lost):
    path = write_gguf(folder / "diffusion_models" / "FramePack_Q8_0.gguf")
    path.write_bytes(path.read_bytes()[: -min(lost, path.stat().st_size - 30)])

    found = checkpoints(folder)[0]

    assert (found.status, "cut off" in found.value) == ("fault", True)


# The files beside it


@pytest.mark.parametrize(
    ("place", "status", "said"),
    [
        ("vae/vae.safetensors", "ok", "GB"),
        ("vae/sub/vae.safetensors", "ok", "GB"),
        ("text_encoders/vae.safetensors", "warning", "move it to models/vae"),
        ("vae/vae (1).safetensors", "warning", "rename it"),
        ("vae/VAE.safetensors", "warning", "rename it"),
        ("vae/vae.safetensors.part", "warning", "unfinished download"),
        ("vae/another.safetensors", "warning", "https://example.org/vae.safetensors"),
    ],
)
def test_a_companion_is_looked_for_under_the_name_of_the_example_workflows(folder, place, status, said):
    safetensors(folder / place, {"decoder": 8})

    (found,) = models.companions([VAE, PUBLISHED], files(folder))

    assert (found.what, found.status) == ("vae/vae.safetensors", status)
    assert said in f"{found.value} {found.remedy}"


def test_a_companion_that_is_cut_off_is_a_fault(folder):
    cut(safetensors(folder / "vae" / VAE.name, {"decoder": 8}))

    (found,) = models.companions([VAE], files(folder))

    assert found.status == "fault"


@pytest.mark.parametrize(
    ("family", "page", "kinds"),
    [
        ("FramePack", "README.md", {"diffusion_models", "text_encoders", "clip_vision", "vae"}),
        ("Helios", "docs/helios.md", {"text_encoders", "vae"}),
    ],
)
def test_the_files_of_the_example_workflows_are_those_of_the_page_about_them(family, page, kinds):
    text = (models.ROOT / page).read_text(encoding="utf-8")

    linked = [file for file in models.linked_files() if file.family == family]

    assert {file.kind for file in linked} == kinds
    assert all(file.url in text and file.name in text for file in linked)


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ({}, ["vae/vae.safetensors"]),
        ({"FramePackI2V.safetensors": COMFYUI}, ["vae/vae.safetensors"]),
        ({"Helios.safetensors": HELIOS}, ["vae/wan_vae.safetensors"]),
        ({"a.safetensors": COMFYUI, "b.safetensors": HELIOS}, ["vae/vae.safetensors", "vae/wan_vae.safetensors"]),
    ],
    ids=["nothing", "FramePack", "Helios", "both"],
)
def test_companions_are_those_of_the_checkpoints_that_are_there(folder, there, wanted):
    for name, tensors in there.items():
        safetensors(folder / "diffusion_models" / name, tensors)

    assert [found.what for found in models.companions([VAE, WAN_VAE], files(folder))] == wanted


def test_folders_that_are_links_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    safetensors(elsewhere / "model.safetensors", COMFYUI)
    try:
        (folder / "diffusion_models" / "link").symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")

    (found,) = checkpoints(folder)

    assert found.what == "diffusion_models/link/model.safetensors"
