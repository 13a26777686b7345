"""One pass over a checkpoint: each module is read, quantised, measured and written before the next one is read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from framepack_core.comfyui.loading.quantise import BLOCK_MATRIX, FORMATS, Spec, format_of, quantise, specs
from framepack_core.media.files import require_name
from framepack_core.media.remedies import named_failure
from scripts.support.quantising.checkpoint import Checkpoint, StreamedFile, of_tensors

SAME = "same"  # only the names change
KEEP = "bf16"  # the format that quantises nothing
FORMAT_NAMES = (KEEP, *FORMATS)
TOKENS = 16  # of random input, to measure the error of a layer's output


@dataclass
class Measured:
    """Squared errors and norms of all layers of one type in one format."""

    layers: int = 0
    before: int = 0
    after: int = 0
    weights: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    outputs: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))

    def add(self, weight: Tensor, quantised: Tensor, before: int, after: int) -> None:
        error = quantised.sub_(weight)
        inputs = torch.randn(TOKENS, weight.shape[1], generator=torch.Generator().manual_seed(self.layers))
        self.layers += 1
        self.before += before
        self.after += after
        self.weights += torch.tensor([error.norm() ** 2, weight.norm() ** 2])
        self.outputs += torch.tensor([(inputs @ error.T).norm() ** 2, (inputs @ weight.T).norm() ** 2])

    @property
    def weight_error(self) -> float:
        return _relative(self.weights)

    @property
    def output_error(self) -> float:
        return _relative(self.outputs)


@dataclass(frozen=True)
class Report:
    """What a conversion did. Layers are by (type, format), sizes in bytes."""

    before: int
    after: int
    quantised: dict[tuple[str, str], Measured]
    kept: dict[str, list[str]]  # type -> matrices of the blocks that the format does not fit


def convert(
    source: Path, destination: Path, format: str, force: bool = False, progress: Callable[[int, int], None] = lambda *_: None
) -> Report:
    """Write `source` to one safetensors file in ComfyUI's names; `progress` receives how many modules are done, of how many.

    Raises ValueError for a source that cannot be converted, an unknown format and an existing destination, and an OSError that
    names the destination if it cannot be written. The destination appears whole or not at all.
    """
    if format not in (SAME, *FORMAT_NAMES):
        raise ValueError(f"{format} is not a format; choose one of {', '.join((SAME, *FORMAT_NAMES))}")
    with named_failure(destination):
        require_destination(destination, force)
    checkpoint = Checkpoint(source)
    if format != SAME:
        checkpoint.require_full_precision()
    file = StreamedFile(destination, planned(checkpoint, format), checkpoint.metadata, replace=force)
    require_space(destination, file.nbytes)
    with named_failure(destination):
        return _write(checkpoint, file, format, progress)


def planned(checkpoint: Checkpoint, format: str) -> dict[str, Spec]:
    """Every tensor of the file to write, from shapes alone."""
    result: dict[str, Spec] = {}
    for module in checkpoint.modules:
        for key, tensor in checkpoint.weights(module, meta=True).items():
            chosen = format_of(key, tuple(tensor.shape), format) if format in FORMATS else None
            if chosen:
                result |= specs(key, tuple(tensor.shape), chosen)
            else:
                result |= of_tensors({key: _kept(tensor, format)})
    return result


def require_destination(destination: Path, force: bool) -> None:
    """Raises ValueError and OSError."""
    if destination.suffix != ".safetensors":
        raise ValueError(f"{destination} must end in .safetensors")
    if not destination.parent.is_dir():
        raise ValueError(f"{destination.parent} is not a folder; create it first")
    if destination.exists() and not force:
        raise ValueError(f"{destination} exists; choose another name or add --force")
    require_name(destination)


def require_space(destination: Path, needed: int) -> None:
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        raise ValueError(f"{destination} needs {needed / 1e9:.2f} GB, but its disk has {free / 1e9:.2f} GB left; make room")


def _write(checkpoint: Checkpoint, file: StreamedFile, format: str, progress: Callable[[int, int], None]) -> Report:
    quantised: dict[tuple[str, str], Measured] = {}
    kept: dict[str, list[str]] = {}
    with file:
        for done, module in enumerate(checkpoint.modules):
            for key, weight in checkpoint.weights(module).items():
                chosen = format_of(key, tuple(weight.shape), format) if format in FORMATS else None
                if chosen is None:
                    file.write(key, _kept(weight, format))
                    if format in FORMATS and weight.ndim == 2 and BLOCK_MATRIX.fullmatch(key):
                        kept.setdefault(layer_type(key), []).append(key)
                    continue
                tensors, restored = quantise(key, weight, chosen)
                for name, tensor in tensors.items():
                    file.write(name, tensor)
                measured = quantised.setdefault((layer_type(key), chosen.name), Measured())
                measured.add(weight.float(), restored, weight.nbytes, sum(tensor.nbytes for tensor in tensors.values()))
            progress(done + 1, len(checkpoint.modules))
    return Report(checkpoint.nbytes, file.nbytes, quantised, kept)


def layer_type(key: str) -> str:
    """`double_blocks.3.img_attn.qkv.weight` -> `double_blocks img_attn.qkv`."""
    return re.sub(r"\.\d+\.", " ", key.removesuffix(".weight"), count=1)


def _kept(tensor: Tensor, format: str) -> Tensor:
    return tensor.to(torch.bfloat16) if format == KEEP else tensor


def _relative(error_and_norm: Tensor) -> float:
    error, norm = error_and_norm.tolist()
    return sqrt(error / norm) if norm else 0.0


def table(report: Report) -> str:
    """The report as lines of text."""
    lines = [f"{'layers':34} {'format':16} {'count':>5} {'weights':>8} {'outputs':>8} {'MB before':>10} {'after':>8}"]
    for (kind, format), measured in sorted(report.quantised.items()):
        lines.append(
            f"{kind:34} {format:16} {measured.layers:5} {measured.weight_error:8.2%} {measured.output_error:8.2%}"
            f" {measured.before / 1e6:10.2f} {measured.after / 1e6:8.2f}"
        )
    for kind, matrices in sorted(report.kept.items()):
        lines.append(f"{kind:34} {'kept':16} {len(matrices):5}   its width does not fit the format")
    lines.append(f"{'file':34} {'':16} {'':5} {'':8} {'':8} {report.before / 1e6:10.2f} {report.after / 1e6:8.2f}")
    return "\n".join(lines)
