"""Makes a picture of evenly spaced frames of a video, including the first and the last.

python -m experiments.pictures.sheet output/framepack_demo.mp4 docs/images/demo.png --columns 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
import numpy
from PIL import Image

GAP = 2  # white pixels between frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--scale", type=int, default=1)
    options = parser.parse_args()
    with av.open(str(options.video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    sheet(frames, options.columns, options.rows, options.scale).save(options.picture, quality=92)


def sheet(frames: list[Image.Image], columns: int, rows: int, scale: int) -> Image.Image:
    """`columns * rows` of the frames, row by row."""
    width, height = (scale * side for side in frames[0].size)
    picture = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for place, number in enumerate(numpy.linspace(0, len(frames) - 1, columns * rows).round().astype(int)):
        row, column = divmod(place, columns)
        frame = frames[number].resize((width, height), Image.Resampling.BICUBIC)
        picture.paste(frame, (column * (width + GAP), row * (height + GAP)))
    return picture


if __name__ == "__main__":
    main()
