"""The released transformer on cards of each size, by arithmetic: the table in docs/memory.md.

`python3 scripts/plans.py memory` prints it. Nothing here was run on a GPU. ComfyUI leaves room for a call's working memory and
a reserve, fills the card with weights, and fetches the rest from RAM at every step, but for modulation layers, which come last
and which only the first section needs.
"""

from __future__ import annotations

from scripts.support.quantising.sizes import modulation_sizes, released_sizes

CARDS = (6, 8, 12, 16, 24)  # GiB
FORMATS = ("bf16", "float8_e4m3fn", "int8_tensorwise", "nvfp4", "convrot_w4a4", "GGUF Q8_0", "GGUF Q4_K")
WORKING = 2.05e9  # bytes that ComfyUI is told for a call at 640x608 in bf16: framepack_core/comfyui/model/memory.py
RESERVE = 0.6 * 2**30  # what ComfyUI keeps free on Windows; less on Linux
OTHERS = 0.5e9  # CUDA itself and a desktop: an assumption


def main() -> None:
    print("| format | size | " + " | ".join(f"{card} GB" for card in CARDS) + " |")
    print("| --- | ---: |" + " ---: |" * len(CARDS))
    sizes, modulations = released_sizes(), modulation_sizes()
    for name in FORMATS:
        cells = [cell(sizes[name], modulations[name], card) for card in CARDS]
        print(f"| `{name}` | {sizes[name] / 1e9:.1f} GB | " + " | ".join(cells) + " |")


def cell(size: int, modulations: int, card: int) -> str:
    """The share of the weights that stays on the card, and the GB that each step fetches."""
    share = min(1.0, room(card) / size)
    fetched = max(0.0, size - modulations - room(card))
    return "all" if share == 1 else f"{share:.0%}, {fetched / 1e9:.1f} GB"


def room(card: float) -> float:
    """Bytes for weights on a card of so many GiB."""
    return card * 2**30 - WORKING - RESERVE - OTHERS


if __name__ == "__main__":
    main()
