"""What to expect of this computer: which file to take, whether it fits, and how long a video takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from framepack_core.plan import Plan
from scripts.support.doctor.findings import Finding, gigabytes
from scripts.support.doctor.machine import Card

FPS, WINDOW, STEPS = 30.0, 9, 25  # the defaults of the nodes
LENGTHS = (1.2, 5, 10, 30, 60)  # seconds of video
LINK = 12e9  # bytes a second from RAM to the card: PCIe 4.0 with 8 lanes, or 3.0 with 16, at best
BESIDE = 8e9  # bytes of RAM for the system, ComfyUI, and the text encoders' share that stays
FP8_FILE = "fp8 file"


@dataclass(frozen=True)
class Choice:
    """A file to take, where it comes from, and why."""

    format: str
    how: str
    why: str


def sources(card: Card) -> dict[str, str]:
    """Formats, the most accurate first, and where each comes from. The last is the best 4-bit format for the card."""
    made = "made by scripts/quantize.py with --format "
    four = {"nvfp4": made + "nvfp4"} if card.nvfp4 else {"GGUF Q4_K": "a published GGUF, with the gguf package"}
    return {
        "bf16": "FramePackI2V_HY_bf16.safetensors",
        FP8_FILE: "FramePackI2V_HY_fp8_e4m3fn.safetensors, that of the example workflow",
        "int8_tensorwise": made + "int8_tensorwise",
        **four,
    }


def choose(card: Card, ram: float, sizes: Mapping[str, float], room: float) -> Choice:
    """The most accurate file that stays on the card; if none does, the one of the example workflow, as far as RAM goes."""
    found = sources(card)
    in_ram = [name for name in found if sizes[name] + BESIDE <= ram]
    whole = [name for name in in_ram if sizes[name] <= room]
    if whole:
        return Choice(whole[0], found[whole[0]], "stays on the card as a whole")
    name = next((name for name in in_ram if name != "bf16"), list(found)[-1])
    fetched = max(0.0, sizes[name] - room)
    why = f"each step fetches {gigabytes(fetched)} from RAM, computed as {fetched / LINK:.1f} s at {LINK / 1e9:.0f} GB/s"
    if sizes[name] + BESIDE > ram:
        why += "; it may not fit into RAM beside the text encoders"
    return Choice(name, found[name], why)


def files(card: Card, ram: float, sizes: Mapping[str, float], room: Callable[[float], float]) -> Iterator[Finding]:
    """Which file to take, and what part of each format stays on this card; computed."""
    space = max(0.0, room(card.total / 2**30))
    choice = choose(card, ram, sizes, space)
    yield Finding("file to take", f"{choice.format}, {gigabytes(sizes[choice.format])} ({choice.how}): {choice.why}")
    shares = (f"{name} {gigabytes(size)}: {share(size, space)}" for name, size in sizes.items())
    yield Finding("on the card, computed", "; ".join(shares))


def share(size: float, space: float) -> str:
    return "all" if size <= space else f"{space / size:.0%}"


def times(step: float, decode: float) -> Iterator[Finding]:
    """How long videos take, from the measured seconds of a step and of decoding a section."""
    section = STEPS * step + decode
    value = f"{duration(section)}: {STEPS} steps of {step:.2f} s, and {decode:.1f} s to decode"
    yield Finding(f"a section at {STEPS} steps", value)
    for length in LENGTHS:
        sections = Plan.of(length, fps=FPS, window=WINDOW).sections
        yield Finding(f"a video of {length:g} s", f"{duration(sections * section)}, {sections} sections")


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
