"""Checkpoint files: which ones there are, what each one is, and how it becomes a MODEL."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from safetensors import SafetensorError

from ...weights import fp8, names, stored
from ...weights.variants import AUTO
from .. import private
from .kinds import Kind, kind_of
from .patcher import with_modulations_last

private.require_for(private.MODELS)  # without them, a FramePack file would be taken for plain HunyuanVideo

log = logging.getLogger("framepack")

FOLDERS = ("diffusion_models", "diffusers")
GGUF = ".gguf"
SUFFIXES = (".safetensors", ".sft", GGUF)
INDEX = "*.safetensors.index.json"
EXCLUDED = (".git",)  # folders that ComfyUI does not list either
WORTH_SAYING = 5e8  # bytes of memory that another file would save
QUANTIZE = Path(__file__).parents[3] / "scripts" / "quantize.py"

_FP8_OPTIONS = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}
WEIGHT_DTYPES = tuple(_FP8_OPTIONS)
FP8_OPTIONS = ("dtype", "fp8_optimizations")


def model_names() -> list[str]:
    """Files and sharded folders under `diffusion_models` and `diffusers`, as paths relative to these; folders end in /."""
    return sorted({name for category in FOLDERS for root in folder_paths.get_folder_paths(category) for name in _names(root)})


def find_model(name: str) -> Path:
    """The path of a listed model. Raises ValueError if it is gone."""
    for category in FOLDERS:
        for root in folder_paths.get_folder_paths(category):
            if (Path(root) / name).exists():
                return Path(root) / name
    raise ValueError(f"{name} is no longer under models/{' or models/'.join(FOLDERS)}; refresh the browser and choose again")


def load(name: str, weight_dtype: str, variant: str = AUTO) -> comfy.model_patcher.ModelPatcher:
    """A FramePack or Helios checkpoint, with official/diffusers or ComfyUI's names, as an ordinary MODEL.

    A quantised file or a GGUF keeps its formats whatever `weight_dtype` says. `variant` is which Helios it is, where the file
    does not say. Raises ValueError for a file that is truncated, incomplete, or of another family.
    """
    return load_path(str(find_model(name)), dict(_FP8_OPTIONS[weight_dtype]), variant)


def load_path(
    path: str, model_options: dict, variant: str = AUTO, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """`load` for a path; ComfyUI calls it again when it needs the same model a second time."""
    name, is_gguf = Path(path).name, _is_gguf(Path(path))
    weights, metadata = read_checkpoint(Path(path))
    header = metadata or {}
    in_file = set() if is_gguf else {weight.data_ptr() for weight in weights.values()}
    kind = kind_of(weights, name)
    weights = names.strip_prefix(weights, kind.marks)
    try:
        private.require_for(kind.serves)
        make_scales_readable(weights)
        if kind.is_diffusers(weights):
            weights, metadata = to_comfy(weights, metadata, kind), None
        if not is_gguf:
            joined = [weight.nbytes for weight in weights.values() if weight.data_ptr() not in in_file]
            say_what_was_joined(Path(path), sum(joined))
        require_shape_weights(weights, kind)
        quantised = is_gguf and any(map(_gguf().is_quantised, weights.values()))
        if quantised or _chose_its_formats(weights, metadata):
            model_options = {key: value for key, value in model_options.items() if key not in FP8_OPTIONS}
        if quantised:
            patcher = _gguf().load(weights, model_options)
        else:
            loaded = private.load_diffusion_model_state_dict(
                weights, model_options=model_options.copy(), metadata=metadata, disable_dynamic=disable_dynamic
            )
            patcher = with_modulations_last(loaded)
        kind.describe(patcher.model, header, Path(path), variant)
    except (ValueError, private.Missing) as error:
        raise ValueError(f"{name}: {error}") from error
    patcher.cached_patcher_init = (load_path, (path, model_options, variant))
    return patcher


def _chose_its_formats(weights: names.Weights, metadata: dict | None) -> bool:
    """Whether layers are quantised already: casting them to fp8 would treat their bytes as numbers."""
    return "_quantization_metadata" in (metadata or {}) or any(key.endswith(".comfy_quant") for key in weights)


def say_what_was_joined(path: Path, size: int) -> None:
    """Log how much memory the names in a file cost, and the command that makes a file without this cost."""
    if size < WORTH_SAYING:
        return
    destination = path.parent / f"{path.stem if path.is_file() else path.name}_comfyui.safetensors"
    log.info(
        "FramePack: %s does not have ComfyUI's names, so %.1f GB of its weights were put together in memory, beside the "
        'file. This makes a file that needs none of it: python3 "%s" "%s" "%s" --format same',
        path.name,
        size / 1e9,
        QUANTIZE,
        path,
        destination,
    )


def make_scales_readable(weights: names.Weights) -> None:
    """Bring scaled fp8, in place, to what ComfyUI reads: one scale per matrix, and the marker that not every tool writes."""
    if any(key.endswith(".scale_weight") for key in weights):
        fp8.one_scale(weights)
        weights.setdefault("scaled_fp8", torch.empty(2, dtype=torch.float8_e4m3fn))


def to_comfy(weights: names.Weights, metadata: dict | None, kind: Kind) -> names.Weights:
    """Official/diffusers names to ComfyUI's, quantisation sidecars included."""
    weights, _ = private.convert_old_quants(weights, "", metadata=metadata)
    return kind.to_comfy(weights)


def read_checkpoint(path: Path) -> tuple[names.Weights, dict | None]:
    """All tensors of a file or a sharded folder, and the file's metadata."""
    if path.is_dir():
        return _read_shards(path), None
    return _gguf().read(path) if _is_gguf(path) else _read_file(path)


def _is_gguf(path: Path) -> bool:
    return path.suffix.lower() == GGUF


def _gguf() -> ModuleType:
    """The GGUF reader, which needs more of ComfyUI than other files do. Raises ValueError if some of that is gone."""
    try:
        from . import gguf
    except private.Missing as missing:
        raise ValueError(str(missing)) from missing
    return gguf


def require_shape_weights(weights: names.Weights, kind: Kind) -> None:
    """Require the weights whose shapes tell ComfyUI how to build the transformer."""
    missing = [key for key in kind.shape_weights if key not in weights]
    if missing:
        raise ValueError(f"the checkpoint is incomplete: it lacks {', '.join(missing)}; download it again")


def _names(root: str) -> Iterator[str]:
    base = Path(root)
    files = list(_files(base))
    indexes = [file for file in files if file.match(INDEX)]
    shards = {index.parent / shard for index in indexes for shard in _shards(index)}
    yield from (f"{index.parent.relative_to(base).as_posix()}/" for index in indexes)
    for file in files:
        if file.suffix.lower() in SUFFIXES and file not in shards:
            yield file.relative_to(base).as_posix()


def _files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below a folder, through links as in ComfyUI's own lists. A link to a folder that it lies in ends there."""
    real = os.path.realpath(folder)
    try:
        paths = sorted(folder.iterdir()) if real not in above else []
    except OSError:  # not there, or not readable
        return
    for path in paths:
        if not path.is_dir():
            yield path
        elif path.name not in EXCLUDED:
            yield from _files(path, (*above, real))


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return set()


def _read_shards(folder: Path) -> names.Weights:
    index = next(folder.glob(INDEX), None)
    shards = _shards(index) if index else set()
    if index is None or not shards:
        raise ValueError(f"{folder.name} has no readable *.safetensors.index.json; download the folder again")
    absent = sorted(shard for shard in shards if not (folder / shard).is_file())
    if absent:
        raise ValueError(f"{folder.name} lacks {len(absent)} of {len(shards)} shards: {', '.join(absent)}; "
                         "download them into that folder")  # fmt: skip
    weights: names.Weights = {}
    for shard in sorted(shards):
        weights |= _read_file(folder / shard)[0]
    _require_all(json.loads(index.read_text())["weight_map"], weights, folder.name)
    return weights


def _require_all(expected: Iterable[str], weights: names.Weights, name: str) -> None:
    missing = sorted(set(expected) - weights.keys())
    if missing:
        raise ValueError(f"the shards of {name} lack {len(missing)} weights of its index, first {missing[0]}; "
                         "download the folder again")  # fmt: skip


def _read_file(path: Path) -> tuple[names.Weights, dict | None]:
    try:
        return comfy.utils.load_torch_file(str(path), return_metadata=True)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path.name} cannot be read: it is damaged or not fully downloaded ({error}); download it again"
        ) from error
    except RuntimeError as error:
        if not (sys.platform == "linux" and "unable to mmap" in str(error)):
            raise
        return stored.map_tensors(path)
