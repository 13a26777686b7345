"""The released models on cards of each size, counted on a fake one: `python3 scripts/bench.py card`.

For each card (free memory, in GB of 10^9 bytes) and file: how much of the transformer's weights stays on the card while it
samples, how much of that is modulation layers, how much every step of the second section fetches, both as they would be if
sections did not share modulations, and the most memory in use. Then the same for decoding ten latent frames at 640x608, with
how often a pixel is computed and whether a layer is computed whole. With --helios, only how two chunks of Helios Distilled at
640x384 are sampled, a step in each stage but the first chunk's, which have two, and the most memory in use by the number of
chunks. With --long, only the most memory in use that decoding a
minute takes, in two sizes and three precisions (an hour). Nothing here runs on a GPU: see experiments/card.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.support.pack import load_comfyui

CARDS = (4, 6, 8, 10, 12, 16, 24)
HELIOS_CARDS = (6, 8, 12, 16, 24)
HELIOS_SIZE = (48, 80)  # latent height and width of 640x384
HELIOS_FILES = ("bf16", "fp8")
CHUNKS, FEW_BLOCKS = (2, 4), 2  # with which it is shown that memory does not grow
FP8 = torch.float8_e4m3fn
FILES = {  # with the dtypes of the blocks' matrices, and of modulation layers
    "bf16": (torch.bfloat16, torch.bfloat16),
    "fp8": (FP8, FP8),
    "fp8, modulations bf16": (FP8, torch.bfloat16),
}
DECODES = {"bf16, fp16": torch.bfloat16, "float32": torch.float32}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--cards", nargs="+", type=float, help="free memory in GB")
    parser.add_argument("--helios", action="store_true", help="Helios instead of FramePack")
    parser.add_argument("--long", action="store_true", help="decoding of a minute in all sizes and precisions")
    options = parser.parse_args()
    load_comfyui(options.comfyui)
    logging.disable(logging.INFO)
    if options.helios:
        return helios(options.cards or HELIOS_CARDS)
    return long(options.cards or CARDS) if options.long else short(options.cards or CARDS)


def short(cards: Sequence[float]) -> int:
    columns = ("weights on the card", "modulations of them", "fetched at each step")
    without = ("without sharing: modulations", "fetched")
    print("| " + " | ".join(("free GB", "file", *columns, *without, "most in use")) + " |")
    print("| ---: | --- |" + " ---: |" * 6)
    for size in cards:
        for name, dtypes in FILES.items():
            print(f"| {size:g} | {name} | {sampling(size, *dtypes)} |", flush=True)
    print("\n| free GB | VAE | layers | most in use | pixels computed over pixels shown |\n| ---: | --- | --- | ---: | ---: |")
    for size in cards:
        for name, dtype in DECODES.items():
            print(f"| {size:g} | {name} | {decoding(size, dtype)} |", flush=True)
    return 0


def helios(cards: Sequence[float]) -> int:
    """Returns 1 if memory grows with the number of chunks."""
    from experiments.card.card import GB

    print("| free GB | file | weights on the card | fetched at each step | most in use |\n| ---: | --- | ---: | ---: | ---: |")
    for size, name in product(cards, HELIOS_FILES):
        found = helios_on(size, FILES[name][0])
        weights = f"{found.loaded / GB:.1f} of {found.whole / GB:.1f} GB"
        print(f"| {size:g} | {name} | {weights} | {found.fetched / GB:.1f} GB | {found.peak / GB:.1f} GB |", flush=True)
    peaks = [helios_on(max(cards), torch.bfloat16, chunks, FEW_BLOCKS).peak for chunks in CHUNKS]
    print(f"\nmost in use with {FEW_BLOCKS} of the 40 blocks, by the number of chunks:")
    print("\n".join(f"  {chunks} chunks: {peak} bytes" for chunks, peak in zip(CHUNKS, peaks, strict=True)))
    return int(peaks[1] > peaks[0])


def long(cards: Sequence[float]) -> int:
    """Returns 1 if any decode takes more than is free."""
    from experiments.card.card import GB
    from experiments.card.decoding import DTYPES, SIZES, decode_long

    failed = False
    print("| free GB | size | VAE | most in use | refused |\n| ---: | --- | --- | ---: | ---: |")
    for free, size, dtype in product(cards, SIZES, DTYPES):
        memory = decode_long(free, SIZES[size], dtype).memory
        failed |= memory.peak > memory.size or memory.refused > 0
        print(f"| {free:g} | {size} | {dtype} | {memory.peak / GB:.1f} GB | {memory.refused} |", flush=True)
    return int(failed)


def sampling(size: float, dtype: torch.dtype, modulations: torch.dtype) -> str:
    from experiments.card.card import GB
    from experiments.card.steps import unshared

    shared = sampled_on(size, dtype, modulations)
    with unshared():
        alone = sampled_on(size, dtype, modulations)
    sizes = (shared.modulations, shared.fetched, alone.modulations, alone.fetched, shared.peak)
    return f"{shared.loaded / GB:.1f} of {shared.whole / GB:.1f} GB | " + " | ".join(f"{size / GB:.1f} GB" for size in sizes)


@dataclass(frozen=True)
class Sampled:
    """Bytes of the model, of all its weights and its modulation layers on the card, fetched by a step, and in use at most."""

    whole: int
    loaded: int
    modulations: int
    fetched: int
    peak: int


def sampled_on(size: float, dtype: torch.dtype, modulations: torch.dtype) -> Sampled:
    """After two sections; the step is one of the second."""
    from experiments.card.card import GB, FakeCard
    from experiments.card.models import released_transformer, released_weights, weights_on
    from experiments.card.steps import request, sampled, watched
    from framepack_core.plan import Plan

    with FakeCard(size * GB) as card:
        model = released_transformer(released_weights(dtype, modulations=modulations))
        calls = watched(card, model)
        sampled(request(model, Plan.of(2.4)))
        kept = weights_on("cuda", model, modulations=True)
        return Sampled(model.model_size(), model.loaded_size(), kept, calls.moved[-1], card.memory.peak)


def helios_on(size: float, dtype: torch.dtype, chunks: int = 2, blocks: int = 40) -> Sampled:
    """After so many chunks; the step is the last stage's of the last one."""
    from experiments.card.card import GB, FakeCard
    from experiments.card.models import helios_weights, released_transformer
    from experiments.card.steps import request, sampled, watched
    from framepack_core.helios.chunks import plan_of

    with FakeCard(size * GB) as card:
        model = released_transformer(helios_weights(dtype, blocks), "Helios-Distilled")
        calls = watched(card, model)
        sampled(request(model, plan_of(chunks), HELIOS_SIZE))
        return Sampled(model.model_size(), model.loaded_size(), 0, calls.moved[-1], card.memory.peak)


def decoding(size: float, dtype: torch.dtype) -> str:
    from experiments.card.card import GB, FakeCard
    from experiments.card.models import released_vae
    from framepack_core.comfyui.decoding.stream import stream_frames

    pixels = Pixels()
    with FakeCard(size * GB, watching=[pixels]) as card:
        vae = released_vae(dtype)
        shown = sum(frames[..., 0].numel() for frames in stream_frames(vae, torch.zeros(1, 16, 10, 76, 80)))
    layers = "whole" if pixels.largest >= 8 * 608 * 640 else "in bands"
    return f"{layers} | {card.memory.peak / GB:.1f} GB | {pixels.computed / shown:.2f}"


class Pixels(TorchDispatchMode):
    """Pixels that the decoder's last convolution puts out, and how many at once."""

    def __init__(self) -> None:
        super().__init__()
        self.computed = self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default and out.shape[1] == 3:
            self.computed += out[0, 0].numel()
            self.largest = max(self.largest, out[0, 0].numel())
        return out


if __name__ == "__main__":
    sys.exit(main())
