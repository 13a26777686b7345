"""`python -m framepack_core.training`: encode a folder of videos, then train on it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from . import codebook, encode, settings


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    logging.basicConfig(format="framepack: %(message)s")
    logging.getLogger("framepack").setLevel(logging.INFO)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"framepack: {error}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m framepack_core.training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    cache = commands.add_parser("cache", help="encode a folder of videos with captions")
    encode.add_arguments(cache)
    cache.set_defaults(run=encode.run)
    centres = commands.add_parser("codebook", help="fit the codebook that discretises histories, against drift")
    codebook.add_arguments(centres)
    centres.set_defaults(run=codebook.run)
    train = commands.add_parser("train", help="train a transformer on encoded clips, or continue an unfinished run")
    settings.add_arguments(train)
    train.set_defaults(run=run_training)
    return parser


def run_training(options: argparse.Namespace) -> int:
    from .train import train

    train(settings.from_arguments(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
