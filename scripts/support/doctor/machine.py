"""The computer: its system, memory, disks, torch, graphics card and driver."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.support.doctor.findings import Finding, gigabytes

OLDEST_PYTHON = (3, 11)
LITTLE_RAM, LITTLE_DISK = 16e9, 5e9
TORCH_URL = "https://pytorch.org/get-started/locally"

# Run in a process of its own: a broken driver may end it, and ComfyUI wants to set torch's allocator before torch is imported.
PROBE = """
import json, torch
xpu = hasattr(torch, "xpu") and torch.xpu.is_available()
cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "rocm": torch.version.hip,
                  "cards": cards, "other": "xpu" if xpu else "mps" if torch.backends.mps.is_available() else ""}))
"""


@dataclass(frozen=True)
class Torch:
    """The build of torch, the CUDA or ROCm cards that it sees, and another kind of card if there is one."""

    version: str
    cuda: str | None
    rocm: str | None
    cards: tuple[str, ...] = ()
    other: str = ""

    @property
    def sees_a_card(self) -> bool:
        return bool(self.cards or self.other)


@dataclass(frozen=True)
class Driver:
    """What nvidia-smi says of one card; memory in bytes."""

    name: str
    version: str
    total: float
    used: float


@dataclass(frozen=True)
class Card:
    """The graphics card as ComfyUI sees it; memory in bytes. `nvfp4` says whether it computes in 4 bits."""

    name: str
    total: float
    free: float
    capability: str
    bf16: bool
    fp8: bool
    nvfp4: bool
    dynamic: bool


def system() -> Finding:
    return Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores")


def python() -> Finding:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("Python", version, "fault", "FramePack needs Python 3.11 or newer: install ComfyUI with a newer Python")
    return Finding("Python", version)


def memory() -> Iterator[Finding]:
    import psutil

    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    value = f"{gigabytes(ram.total)}, {gigabytes(ram.available)} free"
    if ram.total < LITTLE_RAM:
        yield Finding("RAM", value, "warning", "the weights that are not on the card stay in RAM: use a 4-bit file")
    else:
        yield Finding("RAM", value)
    yield Finding("swap", f"{gigabytes(swap.total)}, {gigabytes(swap.free)} free")


def disks(folders: dict[str, Path]) -> Iterator[Finding]:
    """The free space of each folder that ComfyUI or the pack writes to; for one that is not there yet, its parent's."""
    for what, folder in folders.items():
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if not os.access(place, os.W_OK):
            yield Finding(f"disk: {what}", f"'{folder}' cannot be written to", "fault", "change its owner or permissions")
        elif free < LITTLE_DISK:
            yield Finding(f"disk: {what}", f"{gigabytes(free)} free in '{folder}'", "warning", "make room on this disk")
        else:
            yield Finding(f"disk: {what}", f"{gigabytes(free)} free in '{folder}'")


# torch and the driver


def read_torch() -> Torch | str:
    """This Python's torch, or the last line of the error that importing it ends with."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Torch(**{**found, "cards": tuple(found["cards"])})


def read_drivers() -> list[Driver]:
    """The cards that nvidia-smi lists; none if there is no nvidia-smi, or it fails."""
    query = ["--query-gpu=name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [row.split(", ") for row in done.stdout.splitlines()] if done.returncode == 0 else []
    return [Driver(name, version, *(mebibytes(cell) for cell in cells)) for name, version, *cells in rows]


def mebibytes(cell: str) -> float:
    """Bytes; not a number where nvidia-smi has none, as on cards that share the computer's memory."""
    try:
        return float(cell) * 2**20
    except ValueError:
        return float("nan")


def torch_build(torch: Torch | str, drivers: list[Driver]) -> Finding:
    if isinstance(torch, str):
        return Finding("torch", f"cannot be imported: {torch}", "fault", f"install torch again, see {TORCH_URL}")
    build = f"CUDA {torch.cuda}" if torch.cuda else f"ROCm {torch.rocm}" if torch.rocm else torch.other or "CPU only"
    value = f"{torch.version}, {build}"
    if torch.sees_a_card or not drivers:
        return Finding("torch", value)
    if torch.cuda:
        remedy = f"update the NVIDIA driver to one that supports CUDA {torch.cuda}, then restart the computer"
        return Finding("torch", f"{value}, but it does not see the {drivers[0].name}", "fault", remedy)
    remedy = f"there is a {drivers[0].name}: install a CUDA build of torch, see {TORCH_URL}"
    return Finding("torch", value, "fault", remedy)


def driver(drivers: list[Driver]) -> Iterator[Finding]:
    if not drivers:
        yield Finding("NVIDIA driver", "nvidia-smi is not there or finds no card")
    for found in drivers:
        used = f"{gigabytes(found.used)} of {gigabytes(found.total)} in use"
        yield Finding("NVIDIA driver", f"{found.version}: {found.name}, {used}")


# The card


def read_card() -> Card | None:
    """None if ComfyUI computes on the CPU. ComfyUI must be loaded."""
    import comfy.memory_management
    import comfy.model_management as management
    import torch

    device = management.get_torch_device()
    if management.is_device_cpu(device):
        return None
    cuda = device.type == "cuda"
    return Card(
        name=torch.cuda.get_device_name(device) if cuda else management.get_torch_device_name(device),
        total=management.get_total_memory(device),
        free=management.get_free_memory(device),
        capability=".".join(map(str, torch.cuda.get_device_capability(device))) if cuda else "",
        bf16=management.should_use_bf16(device),
        fp8=management.supports_fp8_compute(device) if cuda else False,
        nvfp4=management.supports_nvfp4_compute(device) if cuda else False,
        dynamic=comfy.memory_management.aimdo_enabled,
    )


def graphics_card(card: Card | None) -> Iterator[Finding]:
    if card is None:
        remedy = (
            "the released models need a card: on a CPU a second of video takes hours. The demo runs anywhere: scripts/demo.py"
        )
        yield Finding("card", "ComfyUI has none and computes on the CPU", "warning", remedy)
        return
    capability = f", compute capability {card.capability}" if card.capability else ""
    yield Finding("card", f"{card.name}{capability}")
    yield card_memory(card)
    yield precision(card)
    yield Finding("dynamic VRAM", "on" if card.dynamic else "off: ComfyUI loads models by its estimates")


def card_memory(card: Card) -> Finding:
    value = f"{gigabytes(card.total)}, {gigabytes(card.free)} free"
    if card.free < 0.75 * card.total:
        remedy = "close other programs that use the card, a running ComfyUI among them, before the doctor measures"
        return Finding("card's memory", value, "warning", remedy)
    return Finding("card's memory", value)


def precision(card: Card) -> Finding:
    able = [name for name, able in (("bf16", card.bf16), ("fp8", card.fp8), ("nvfp4", card.nvfp4)) if able]
    value = f"computes in {', '.join([*able, 'float32'])}"
    if not card.bf16:
        remedy = (
            "without bf16 ComfyUI computes FramePack in float32: a step takes twice the memory and more time, so lower "
            "base_resolution; fp16 would make black frames"
        )
        return Finding("number formats", value, "warning", remedy)
    return Finding("number formats", value)
