"""Which layers are quantised, how large they become, and the file that scripts/quantize.py writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from framepack_core.comfyui.loading.quantise import FORMATS, format_of, nbytes, quantise, specs
from framepack_core.trained import Trained
from scripts.support.quantising import convert as conversion
from scripts.support.quantising.convert import FORMAT_NAMES, convert
from scripts.support.quantising.sizes import released_sizes

ROOT = Path(__file__).parents[2]
MATRIX = "double_blocks.0.img_attn.qkv.weight"
BOUNDS = {"float8_e4m3fn": 0.03, "int8_tensorwise": 0.01, "mxfp8": 0.03, "nvfp4": 0.11, "convrot_w4a4": 0.15}


def random(*shape: int, dtype=torch.bfloat16) -> torch.Tensor:
    return (0.02 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))).to(dtype)


def checkpoint(hidden: int = 256, blocks: int = 1) -> dict[str, torch.Tensor]:
    """Some of FramePack's layers in official names: one of each kind that a conversion tells apart."""
    weights = {
        "clean_x_embedder.proj.weight": random(hidden, 16, 1, 2, 2),
        "transformer_blocks.0.norm1.linear.weight": random(6 * hidden, hidden),
        "context_embedder.token_refiner.refiner_blocks.0.ff.net.2.weight": random(hidden, 4 * hidden),
        "norm_out.linear.weight": random(2 * hidden, hidden),
        "proj_out.weight": random(64, hidden),
    }
    for i in range(blocks):
        for part in ("to_q", "to_k", "to_v"):
            weights[f"single_transformer_blocks.{i}.attn.{part}.weight"] = random(hidden, hidden) * (1 + i)
        weights[f"single_transformer_blocks.{i}.proj_mlp.weight"] = random(4 * hidden, hidden)
        weights[f"single_transformer_blocks.{i}.norm.linear.weight"] = random(3 * hidden, hidden)
        weights[f"single_transformer_blocks.{i}.attn.norm_q.weight"] = random(128)
    return weights


@pytest.fixture
def source(tmp_path) -> Path:
    save_file(checkpoint(), tmp_path / "source.safetensors", Trained(("geometric",), ("forward",)).metadata())
    return tmp_path / "source.safetensors"


def marks(path: Path) -> dict[str, dict]:
    """Module -> what its comfy_quant says."""
    weights = load_file(path)
    return {
        key.removesuffix(".comfy_quant"): json.loads(bytes(weights[key].tolist()))
        for key in weights
        if key.endswith(".comfy_quant")
    }


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(768, 256), (100, 512), (21504, 256)], ids=str)
def test_the_announced_tensors_are_those_that_come(name, shape):
    format = format_of(MATRIX, shape, name)

    tensors, restored = quantise(MATRIX, random(*shape), format)

    announced = specs(MATRIX, shape, format)
    assert {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()} == announced
    assert nbytes(announced) == sum(tensor.nbytes for tensor in tensors.values())
    assert restored.shape == shape
    assert (restored - random(*shape).float()).norm() < BOUNDS[name] * random(*shape).float().norm()


@pytest.mark.parametrize("name", FORMATS)
def test_a_large_matrix_packed_in_pieces_is_the_same(name, monkeypatch):
    expected, restored = quantise(MATRIX, random(1000, 256), FORMATS[name])
    monkeypatch.setattr("framepack_core.comfyui.loading.quantise.ELEMENTS_AT_ONCE", 256 * 256)

    found, also = quantise(MATRIX, random(1000, 256), FORMATS[name])

    assert torch.equal(also, restored)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key].float(), expected[key].float()) for key in expected)


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_stay_zeros(name):
    _, restored = quantise(MATRIX, torch.zeros(256, 256), FORMATS[name])

    assert torch.equal(restored, torch.zeros(256, 256))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "key",
    ["txt_in.individual_token_refiner.blocks.0.mlp.0.weight", "img_in.proj.weight", "clean_x_embedder.proj.weight",
     "time_in.in_layer.weight", "vector_in.in_layer.weight", "guidance_in.out_layer.weight", "image_projection.up.weight",
     "final_layer.linear.weight", "final_layer.adaLN_modulation.1.weight", "double_blocks.0.img_attn.qkv.bias"],
)  # fmt: skip
def test_embedders_the_head_and_biases_are_never_packed(name, key):
    assert format_of(key, (256, 256), name) is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "layer", ["double_blocks.7.img_mod.lin", "double_blocks.0.txt_mod.lin", "single_blocks.39.modulation.lin"]
)
def test_modulation_takes_eight_bits(name, layer):
    format = format_of(f"{layer}.weight", (768, 256), name)

    assert format.specs(768, 256)[""][0].itemsize == 1
    assert format.specs(768, 256)[""][1] == (768, 256)


@pytest.mark.parametrize(("name", "columns"), [("mxfp8", 48), ("nvfp4", 24), ("convrot_w4a4", 128)])
def test_a_matrix_whose_width_does_not_fit_keeps_its_precision(name, columns):
    assert format_of(MATRIX, (256, columns), name) is None
    assert format_of(MATRIX, (256, 256), name).name == name


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_names_the_format_of_each_packed_layer(name, source, tmp_path):
    report = convert(source, tmp_path / "quantised.safetensors", name)

    found = marks(tmp_path / "quantised.safetensors")
    assert {module: mark["format"] for module, mark in found.items()} == {
        "double_blocks.0.img_mod.lin": FORMATS[name].modulation,
        "single_blocks.0.modulation.lin": FORMATS[name].modulation,
        "single_blocks.0.linear1": name,
    }
    assert all(found[module]["full_precision_matrix_mult"] for module in found if "mod" in module.split(".")[2])
    assert report.after == (tmp_path / "quantised.safetensors").stat().st_size


def test_what_is_not_packed_is_unchanged_and_the_head_is_in_comfyui_s_order(source, tmp_path):
    convert(source, tmp_path / "quantised.safetensors", "nvfp4")

    given, found = checkpoint(), load_file(tmp_path / "quantised.safetensors")
    assert torch.equal(found["final_layer.linear.weight"], given["proj_out.weight"])
    assert torch.equal(found["clean_x_embedder.proj.weight"], given["clean_x_embedder.proj.weight"])
    assert torch.equal(found["single_blocks.0.norm.query_norm.weight"], given["single_transformer_blocks.0.attn.norm_q.weight"])
    scale, shift = given["norm_out.linear.weight"].chunk(2)
    assert torch.equal(found["final_layer.adaLN_modulation.1.weight"], torch.cat([shift, scale]))


def test_bf16_renames_and_rounds_only(source, tmp_path):
    convert(source, tmp_path / "bf16.safetensors", "bf16")

    given, found = checkpoint(), load_file(tmp_path / "bf16.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    parts = [
        given[f"single_transformer_blocks.0.{part}.weight"] for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ]
    assert torch.equal(found["single_blocks.0.linear1.weight"], torch.cat(parts))


def test_shards_give_the_same_file_as_one_file(source, tmp_path):
    """q, k and v of one matrix are in different shards."""
    weights = checkpoint()
    names = {name: f"shard-{i % 3}.safetensors" for i, name in enumerate(sorted(weights))}
    (tmp_path / "folder").mkdir()
    for shard in set(names.values()):
        save_file({name: weights[name] for name in names if names[name] == shard}, tmp_path / "folder" / shard)
    (tmp_path / "folder" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    convert(tmp_path / "folder", tmp_path / "a.safetensors", "nvfp4")
    convert(source, tmp_path / "b.safetensors", "nvfp4")

    found, expected = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_comfyui_s_names_and_a_prefix_are_read_too(source, tmp_path):
    convert(source, tmp_path / "native.safetensors", "bf16")
    native = {f"model.diffusion_model.{key}": w for key, w in load_file(tmp_path / "native.safetensors").items()}
    save_file(native, tmp_path / "prefixed.safetensors")

    convert(tmp_path / "prefixed.safetensors", tmp_path / "a.safetensors", "mxfp8")
    convert(source, tmp_path / "b.safetensors", "mxfp8")

    found, expected = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key].view(torch.uint8), expected[key].view(torch.uint8)) for key in expected)


def test_what_the_file_was_trained_with_is_carried_over(source, tmp_path):
    convert(source, tmp_path / "quantised.safetensors", "nvfp4")

    with safe_open(tmp_path / "quantised.safetensors", "pt") as quantised:
        assert Trained.of_metadata(quantised.metadata()) == Trained(("geometric",), ("forward",))


def test_the_report_has_errors_sizes_and_what_did_not_fit(tmp_path):
    save_file(checkpoint(hidden=128), tmp_path / "narrow.safetensors")

    report = convert(tmp_path / "narrow.safetensors", tmp_path / "quantised.safetensors", "convrot_w4a4")

    measured = report.quantised["single_blocks modulation.lin", "int8_tensorwise"]
    assert measured.layers == 1 and measured.before == 2 * 3 * 128 * 128
    assert 0.003 < measured.weight_error < 0.01 and 0.003 < measured.output_error < 0.01
    assert report.kept == {"single_blocks linear1": ["single_blocks.0.linear1.weight"]}
    assert "does not fit" in conversion.table(report)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda folder: save_file({"decoder.weight": random(4)}, folder / "x.safetensors"), "is a VAE"),
        (lambda folder: convert(folder / "source.safetensors", folder / "x.safetensors", "nvfp4"), "is quantised already"),
        (lambda folder: save_file({k: w.to(torch.float8_e4m3fn) for k, w in checkpoint().items()}, folder / "x.safetensors"),
         "is quantised already"),
        (lambda folder: (folder / "x.safetensors").write_bytes(b"\x10" * 100), "cannot be read"),
    ],
    ids=["something else", "quantised", "fp8", "damaged"],
)  # fmt: skip
def test_a_source_that_cannot_be_converted_is_named(given, message, source, tmp_path):
    given(tmp_path)

    with pytest.raises(ValueError, match=rf"x.safetensors {message}"):
        convert(tmp_path / "x.safetensors", tmp_path / "quantised.safetensors", "nvfp4")
    assert not (tmp_path / "quantised.safetensors").exists()


def test_an_unknown_format_and_an_existing_destination_are_refused(source, tmp_path):
    (tmp_path / "there.safetensors").write_text("mine")

    with pytest.raises(ValueError, match="int5 is not a format; choose one of same, bf16, float8_e4m3fn"):
        convert(source, tmp_path / "new.safetensors", "int5")
    with pytest.raises(ValueError, match="exists; choose another name or add --force"):
        convert(source, tmp_path / "there.safetensors", "nvfp4")
    assert (tmp_path / "there.safetensors").read_text() == "mine"
    convert(source, tmp_path / "there.safetensors", "nvfp4", force=True)
    assert marks(tmp_path / "there.safetensors")


def test_a_file_that_appears_while_quantising_stays(source, tmp_path):
    path = tmp_path / "quantised.safetensors"

    with pytest.raises(OSError, match=r"quantised\.safetensors was not written \(File exists\); .*choose another"):
        convert(source, path, "nvfp4", progress=lambda *_: path.write_text("mine"))

    assert path.read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["quantised.safetensors", "source.safetensors"]


def test_a_name_may_be_as_long_as_the_disk_allows_and_a_longer_one_is_refused_at_once(source, tmp_path):
    def never(*_):
        raise AssertionError("it was quantised")

    assert convert(source, tmp_path / f"{243 * 'a'}.safetensors", "nvfp4").after
    with pytest.raises(OSError, match=r"was not written \(File name too long\); choose a shorter name"):
        convert(source, tmp_path / f"{244 * 'a'}.safetensors", "nvfp4", progress=never)


def test_too_little_space_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))

    with pytest.raises(ValueError, match=r"needs 0.00 GB, but its disk has 0.00 GB left"):
        convert(source, tmp_path / "quantised.safetensors", "nvfp4")
    assert [path.name for path in tmp_path.iterdir()] == ["source.safetensors"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=["disk full", "interrupted"])
def test_a_conversion_that_fails_leaves_nothing_behind(error, source, tmp_path, monkeypatch):
    (tmp_path / "quantised.safetensors").write_text("mine")

    def fail(*_):
        raise error

    with pytest.raises((OSError, KeyboardInterrupt), match="quantised.safetensors was not written" if error.args else None):
        convert(source, tmp_path / "quantised.safetensors", "nvfp4", force=True, progress=fail)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["quantised.safetensors", "source.safetensors"]
    assert (tmp_path / "quantised.safetensors").read_text() == "mine"


# Makes glibc return freed matrices: the pieces it would keep, 9 to 34 MB here from run to run, are not what the script uses.
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}
MEASURE = """
import sys, threading
from pathlib import Path
import torch
from scripts.support.quantising.convert import convert

torch.set_num_threads(1)

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

def convert_and_watch(source, destination):
    peak, done = [0], threading.Event()
    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    convert(source, destination, "nvfp4")
    done.set()
    thread.join()
    return peak[0]

small, large, folder = map(Path, sys.argv[1:])
convert_and_watch(small, folder / "a.safetensors")
before = anonymous()
print(convert_and_watch(large, folder / "b.safetensors") - before)
"""


@pytest.mark.slow
def test_memory_holds_some_copies_of_one_layer_however_large_the_file_is(tmp_path):
    """Anonymous memory in a separate process, beyond what converting a small file leaves there."""
    save_file(checkpoint(), tmp_path / "source.safetensors")
    save_file(checkpoint(blocks=80), tmp_path / "large.safetensors")
    size = (tmp_path / "large.safetensors").stat().st_size

    command = [sys.executable, "-c", MEASURE, tmp_path / "source.safetensors", tmp_path / "large.safetensors", tmp_path]
    taken = int(subprocess.check_output(command, cwd=ROOT, env={**os.environ, **FREED_AT_ONCE}))

    layer = 7 * 256 * 256 * 4  # the largest matrix in float32
    assert taken < 15 * layer < size / 3


def test_the_sizes_in_the_documentation_are_computed():
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")

    for name, size in released_sizes().items():
        assert f"| `{name}` | {size / 1e9:.2f} GB |" in text
    assert set(FORMAT_NAMES) <= released_sizes().keys()
