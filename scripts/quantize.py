"""A smaller checkpoint: `python3 scripts/quantize.py SOURCE DEST --format nvfp4`.

SOURCE is a .safetensors file or a folder with shards, in official/diffusers or ComfyUI's names and full precision. DEST is one
.safetensors file in ComfyUI's names and formats, which FramePack_LoadModel and ComfyUI's own Load Diffusion Model can read.

`--format same` changes nothing but the names: SOURCE may be quantised, and DEST loads as the same model, bit for bit. Loading
it takes less of the computer's memory, because ComfyUI finds every weight in the file as it needs it.

Formats: bf16, float8_e4m3fn, int8_tensorwise, mxfp8, nvfp4, convrot_w4a4 (see docs/formats.md). Norms, embedders and the head
keep their precision, modulation gets 8 bits. Layers are read, quantised and written one by one. It prints the error of each
type of layer, and the sizes.

`python3 scripts/quantize.py --compare [CHECKPOINT]` runs a small checkpoint (by default the demo's) through the whole graph in
every format, including GGUF, and prints the memory and the error relative to fp32.

If your python3 has torch, numpy, safetensors and comfy_kitchen, as ComfyUI's has, the script runs in it, otherwise in the
environment that the tests use.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import ROOT, prepare_or_exit, run_module

NEEDED = ("torch", "numpy", "safetensors", "comfy_kitchen")
DEMO = ROOT / "framepack_core" / "demo" / "weights" / "demo_transformer.safetensors"


def main() -> int:
    options = parse_arguments()
    if options.compare is not None:
        environment = prepare_or_exit()
        return run_module(environment, "scripts.support.quantising.compare", environment.comfyui, options.compare.resolve())
    if not all(map(importlib.util.find_spec, NEEDED)):
        return subprocess.run([prepare_or_exit(tests=False).python, __file__, *sys.argv[1:]]).returncode
    return convert(options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="a checkpoint")
    parser.add_argument("destination", nargs="?", type=Path, help="the file to write; its name ends in .safetensors")
    parser.add_argument("--format", help="one of the formats above")
    parser.add_argument("--force", action="store_true", help="replace an existing destination")
    parser.add_argument("--compare", nargs="?", type=Path, const=DEMO, metavar="CHECKPOINT", help="measure every format")
    options = parser.parse_args()
    if options.compare is None and not (options.source and options.destination and options.format):
        parser.error("give SOURCE, DEST and --format, or --compare")
    return options


def convert(options: argparse.Namespace) -> int:
    from scripts.support.quantising.convert import convert, table

    try:
        print(table(convert(options.source, options.destination, options.format, options.force, progress)))
    except (ValueError, OSError) as error:
        sys.exit(f"framepack: {error}")
    except KeyboardInterrupt:
        sys.exit("framepack: interrupted; nothing was written")
    return 0


def progress(done: int, modules: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{modules} layers", end="" if done < modules else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
