"""The codebook of discretised histories from a cache: `python -m framepack_core.training codebook CACHE`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from .cache import CODEBOOK, SUFFIX, ClipCache
from .history import CENTRES, CachedLatents, Codebook

log = logging.getLogger("framepack")

PIXELS = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fit the codebook that discretises histories (the paper's +D): k-means over a cache's latent pixels."
    parser.add_argument("cache", type=Path, help="folder written by the cache command")
    parser.add_argument("--out", type=Path, help=f"file (default: {CODEBOOK}{SUFFIX} in the cache)")
    parser.add_argument("--centres", type=int, default=CENTRES, help="latent pixels in the codebook (%(default)d)")
    parser.add_argument("--pixels", type=int, default=PIXELS, help="latent pixels to fit it on (%(default)d)")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> int:
    """Exit code: 0, or 1 if the cache has no clips or too few different latent pixels."""
    out = options.out or options.cache / f"{CODEBOOK}{SUFFIX}"
    try:
        if options.centres < 1 or options.pixels < options.centres:
            raise ValueError(f"centres {options.centres}, pixels {options.pixels}: choose 1 <= centres <= pixels")
        clips = CachedLatents(ClipCache(options.cache))
        codebook = Codebook.fit(clips, options.centres, torch.Generator().manual_seed(options.seed), options.pixels)
        codebook.save(out)
    except (ValueError, OSError) as error:
        log.error("%s", error)
        return 1
    sys.stderr.write(f"{out}: {options.centres} centres from {len(clips)} clips\n")
    return 0
