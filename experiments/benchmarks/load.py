"""The memory that loading the released transformer takes, by kind of file and patcher. Run by `scripts/bench.py load`.

The files have the released shapes and no contents: a header, and zeros that take no room on the disk. Each is loaded in a
process of its own, with the dtype that ComfyUI chooses for a card that is smaller than the model; then every weight is read,
as a step of sampling does. What counts is anonymous memory (RssAnon): pages of the file can be dropped and read again, these
cannot. No card is needed: the dynamic patcher is ComfyUI's own, with comfy-aimdo, but what it does on a card is left out.
`mapped` is the classic patcher on a computer whose memory has no room for the model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy
import torch

from framepack_core.weights import names
from scripts.support.environment import ROOT
from scripts.support.pack import load_comfyui
from scripts.support.quantising.checkpoint import header
from scripts.support.quantising.to_gguf import SHAPE_KEY

DEPTH = (20, 40)  # double and single blocks of the released transformer
WIDTH, HEAD = 3072, 128
INTERVAL = 0.005  # seconds between readings of the memory
FP8, BF16 = torch.float8_e4m3fn, torch.bfloat16
DTYPES = {"bf16": BF16, "fp8": FP8}
GGUF_TYPES = ("Q8_0", "Q4_K")
PATCHERS = ("dynamic", "classic", "mapped")
INDEX = "diffusion_pytorch_model.safetensors.index.json"
SHARDS = 3
CARD = "cuda:0"  # only named: nothing is put there

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A kind of file, and how it is loaded."""

    label: str
    file: str
    dtype: str  # how its matrices are stored
    load: str | None = None  # the dtype to load them in; None leaves it to the file
    patchers: tuple[str, ...] = PATCHERS


CASES = (
    Case("official names, bf16", "official", "bf16", "bf16"),
    Case("official names, bf16, shards", "shards", "bf16", "bf16"),
    Case("ComfyUI's names, bf16", "comfyui", "bf16", "bf16"),
    Case("official names, fp8", "official", "fp8", "fp8"),
    Case("ComfyUI's names, fp8", "comfyui", "fp8", "fp8"),
    Case("official names, bf16, weight_dtype fp8", "official", "bf16", "fp8"),
    Case("ComfyUI's names, bf16, weight_dtype fp8", "comfyui", "bf16", "fp8"),
    *(Case(f"GGUF {kind}, {named} names", f"gguf-{names}", kind, None, ("classic", "mapped"))
      for kind in GGUF_TYPES for names, named in (("official", "official"), ("comfyui", "ComfyUI's"))),
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Bytes of anonymous memory above that of the idle process: the peak of loading, after it, and the peak of reading."""

    loading: int
    loaded: int
    reading: int


def main() -> int:
    options = arguments()
    if options.one:
        print(json.dumps(vars(measure(options.comfyui, *options.one))))
        return 0
    print_row("file", "patcher", "size", "loading: peak", "loaded", "reading: peak")
    print_row("---", "---", "---:", "---:", "---:", "---:")
    with TemporaryDirectory(dir=options.folder) as folder:
        for case in CASES:
            print_case(case, options, Path(folder))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.py load", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--depth", type=int, nargs=2, default=DEPTH, help="double and single blocks (default: %(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="features of a token (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only rows, as in `GGUF Q4_K, mapped`, that match")
    parser.add_argument("--limit", type=float, help="GB of anonymous memory at which a run is given up (default: what is free)")
    parser.add_argument("--folder", type=Path, help="where the files go; its file system must know sparse files")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def print_case(case: Case, options: argparse.Namespace, folder: Path) -> None:
    patchers = [patcher for patcher in case.patchers if re.search(options.only, f"{case.label}, {patcher}")]
    if not patchers:
        return
    path = write(case, released_shapes(options.width, *options.depth, comfyui="comfyui" in case.file), folder)
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.safetensors")))
    for patcher in patchers:
        cost = in_process(options, path, case.load, patcher)
        cells = [f"{value / 1e9:.2f}" for value in vars(cost).values()] if cost else ["too much"] * 3
        print_row(case.label, patcher, f"{size / 1e9:.2f}", *cells)


def in_process(options: argparse.Namespace, path: Path, dtype: str | None, patcher: str) -> Cost | None:
    """`measure` in a new process; None if it needed more than the limit."""
    limit = options.limit or 0.8 * free_memory()
    command = [sys.executable, "-m", __spec__.name, str(options.comfyui), "--one", str(path), str(dtype), patcher, str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == TOO_MUCH:
        return None
    if done.returncode:
        sys.exit(done.stderr)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


# One run

TOO_MUCH = 77  # the exit status of a run that was given up


def measure(comfyui: Path, path: str, dtype: str, patcher: str, limit: str) -> Cost:
    """Load a file and read every weight."""
    options = {"dtype": DTYPES[dtype]} if dtype in DTYPES else {}
    if patcher == "dynamic":
        start_aimdo()
    load_comfyui(comfyui)
    if patcher == "dynamic":
        enable_dynamic_vram()
    import comfy.model_management

    from framepack_core.comfyui.loading import checkpoints
    from framepack_core.comfyui.model import residence

    if patcher == "mapped":
        residence.has_room = lambda size: False
    comfy.model_management.get_torch_device = lambda: torch.device(CARD)
    comfy.model_management.should_use_bf16 = lambda *args, **kwargs: True
    with Peak(float(limit)) as loading:
        model = checkpoints.load_path(path, options)
    if model.is_dynamic() != (patcher == "dynamic"):
        sys.exit(f"{path} was loaded by {type(model).__name__}")
    with Peak(float(limit)) as reading:
        read_weights(model.model.diffusion_model)
    return Cost(loading.most - loading.idle, reading.idle - loading.idle, reading.most - loading.idle)


def start_aimdo() -> None:
    """Before ComfyUI, whose modules bind its library when they are imported."""
    import comfy_aimdo.control

    if not comfy_aimdo.control.init():
        sys.exit("comfy-aimdo cannot be loaded here; choose others with --only")


def enable_dynamic_vram() -> None:
    """What ComfyUI's main.py does when it finds comfy-aimdo and a card."""
    import comfy.memory_management
    import comfy.model_patcher

    comfy.memory_management.aimdo_enabled = True
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic


def read_weights(model: torch.nn.Module) -> None:
    """Copy each weight into a buffer, as on the way to a card."""
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            stored = getattr(weight, "_qdata", weight)
            torch.empty_like(stored).copy_(stored)


class Peak:
    """This process's most anonymous memory while the block runs, and before. Ends the process above `limit` GB."""

    def __init__(self, limit: float) -> None:
        self.limit = limit * 1e9
        self.idle = self.most = anonymous()
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> Peak:
        self.watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.watcher.join()
        self.look()

    def watch(self) -> None:
        while not self.ended.wait(INTERVAL):
            self.look()

    def look(self) -> None:
        self.most = max(self.most, anonymous())
        if self.most > self.limit:
            os._exit(TOO_MUCH)


def anonymous() -> int:
    """Bytes of this process that are neither in a file nor swapped out."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if not found:
        sys.exit("this needs Linux, whose /proc/self/status has RssAnon")
    return 1024 * int(found[1])


def free_memory() -> float:
    """GB that programs can take without swapping."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return 1024 * int(found[1]) / 1e9 if found else math.inf


# Files without contents


def write(case: Case, shapes: Shapes, folder: Path) -> Path:
    """The file or folder of shards of this case."""
    path = folder / f"{case.file}-{case.dtype}"
    if case.dtype in GGUF_TYPES:
        return write_gguf(path.with_suffix(".gguf"), shapes, case.dtype)
    if case.file == "shards":
        path.mkdir(exist_ok=True)
        members = [dict(list(shapes.items())[i::SHARDS]) for i in range(SHARDS)]
        files = {f"model-{i + 1:05}-of-{SHARDS:05}.safetensors": some for i, some in enumerate(members)}
        for name, some in files.items():
            write_safetensors(path / name, some, DTYPES[case.dtype])
        (path / INDEX).write_text(json.dumps({"weight_map": {key: name for name, some in files.items() for key in some}}))
        return path
    return write_safetensors(path.with_suffix(".safetensors"), shapes, DTYPES[case.dtype])


def released_shapes(width: int, double: int, single: int, comfyui: bool) -> Shapes:
    """By name, official or ComfyUI's."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel  # takes seconds, which the measured processes do not need

    with torch.device("meta"):
        model = HunyuanVideoFramepackTransformer3DModel(
            num_attention_heads=width // HEAD,
            attention_head_dim=HEAD,
            num_layers=double,
            num_single_layers=single,
            image_proj_dim=1152,
            has_image_proj=True,
            has_clean_x_embedder=True,
        )
    weights = dict(model.state_dict())
    return {key: tuple(weight.shape) for key, weight in (names.to_comfy(weights) if comfyui else weights).items()}


def write_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Path:
    """All in bf16 but the blocks' matrices, which are in `dtype`."""
    specs = {key: (dtype if is_matrix(key, shape) else BF16, shape) for key, shape in shapes.items()}
    head = header(specs, {})
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs.values()))
    return path


def write_gguf(path: Path, shapes: Shapes, kind: str) -> Path:
    """All in F32 but the blocks' matrices, which are in `kind`."""
    writer = gguf.GGUFWriter(path, "hyvid")
    for key, shape in shapes.items():
        rows, columns = shape[0], math.prod(shape[1:])
        type, data, stored = gguf.GGMLQuantizationType.F32, numpy.dtype("float32"), shape
        if is_matrix(key, shape):
            type, data = gguf.GGMLQuantizationType[kind], numpy.dtype("uint8")
            elements, size = gguf.GGML_QUANT_SIZES[type]
            stored = (rows, columns // elements * size)
        elif len(shape) > 2:
            writer.add_array(SHAPE_KEY + key, list(shape))
            stored = (rows, columns)
        writer.add_tensor_info(key, stored, data, math.prod(stored) * data.itemsize, type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with opened(writer) as file:
        align = gguf.GGUF_DEFAULT_ALIGNMENT
        sizes = [writer.ggml_pad(info.nbytes, align) for tensors in writer.tensors for info in tensors.values()]
        file.truncate(writer.ggml_pad(file.tell(), align) + sum(sizes))
    return path


@contextmanager
def opened(writer: gguf.GGUFWriter) -> Iterator:
    if not writer.fout:
        raise RuntimeError("the header is not written")
    yield writer.fout[0]
    writer.close()


def is_matrix(key: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is one of the blocks' matrices, in either kind of names."""
    blocks = ("double_blocks.", "single_blocks.", "transformer_blocks.", "single_transformer_blocks.")
    return key.startswith(blocks) and len(shape) == 2


if __name__ == "__main__":
    sys.exit(main())
