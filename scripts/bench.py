"""`python3 scripts/bench.py [NAME] [--help]`, with one of these names:

speed (default): paired comparisons, printed as ratios; exits non-zero if a bound is missed. Each figure is the median of
interleaved runs in one process, so that it holds even if the machine's speed drifts.

helios: Helios against ComfyUI's Wan on as many tokens, printed as ratios in the same way.

memory: peak memory and time of real servers, by the length of the video, the sampler and the way of saving.

decode: how close the ways to decode a long video in little memory come to ComfyUI's decode of the whole video.

load: the computer's memory that loading a checkpoint takes, by the names and the format of the file.

card: what the released models keep, fetch and compute on cards of each size, counted on a fake card;
with --helios, Helios.

gpu: the released size with random weights on a real card: seconds a step, their share of the card's peak, the memory of
sampling and decoding on cards of 6, 8 and 12 GB, and a video of 1800 frames.

flags: seconds a step and the error of ComfyUI's ways to compute faster: SageAttention, fp8 and fp16 products, torch.compile.

profile: where the time of a step goes: products, attention, norms, rotary phases and the rest.

waits: what a run waits for besides its steps: until the first one, between sections, encoding and decoding beside ComfyUI's own
nodes; and what is sent to the front end.

previews: how much longer the demo's video takes while previews are watched.

cache: what FramePack Cache saves, and how near its video comes to the one that all steps give.

expected: how near ways to expect a skipped call's result come to what the model gives.

frames: what is given of a video, and the joins with what is made beside it, in every way to give frames and every order.

oneframe: where the shape is in single pictures, beside the world's truth.

measures: what FramePack Measure Video says of videos that do not drift.

steps: how near videos of 6 to 12 steps come to one of 50, by sampler and shift, with FramePack Cache and without.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import prepare_or_exit, run_module

BENCHMARKS = (
    "speed", "helios", "memory", "decode", "load", "card", "gpu", "flags", "profile", "waits", "previews", "cache", "expected",
    "frames", "oneframe", "measures", "steps",
)  # fmt: skip


def main() -> int:
    name, *options = sys.argv[1:] if sys.argv[1:2] and sys.argv[1] in BENCHMARKS else ["speed", *sys.argv[1:]]
    environment = prepare_or_exit()
    return run_module(environment, f"experiments.benchmarks.{name}", environment.comfyui, *options)


if __name__ == "__main__":
    sys.exit(main())
