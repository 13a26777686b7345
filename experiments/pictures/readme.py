"""Draws those pictures of the documents that code makes. Run by scripts/pictures.py."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from framepack_core.drawing.painting import draw_plan
from framepack_core.media.files import whole_file
from framepack_core.plan import Plan
from scripts.support.environment import ROOT, Environment
from scripts.support.pack import load_comfyui
from scripts.support.server import Server

Draw = Callable[[argparse.Namespace], Iterator[Path]]  # writes pictures

FORMATS = {".jpg": "JPEG", ".webp": "WEBP"}

# FramePack Demo Image has this scene under SCENE; the sampler's seed is the scene's own, 3,000,000 more.
SCENE, MOTION, SECTIONS, STEPS = 110, "bounce", 4, 10

QUALITY = 85
NO_KEY_FRAMES = {"kmin": 9998, "kmax": 9999}  # complete pictures; by default the encoder makes one in seventeen complete

COLOURS = 64  # in the drawing of a plan: halves the bytes

PLANS = {
    "plan": Plan.of(5),
    "f1": Plan.of(5, "forward"),
    "endpoints": Plan.of(7, "endpoints"),
    "geometric": Plan.of(5, "forward", layout="geometric"),
    "important-start": Plan.of(7, "forward", layout="important-start"),
    "tail-average": Plan.of(7, "forward", layout="ta_f16k4f2k2f1k1_g9"),
}


def main() -> int:
    options = arguments()
    for name in options.only:
        for path in PICTURES[name](options):
            print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/pictures.py", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=list(PICTURES), choices=PICTURES, metavar="NAME",
                        help=f"some of {', '.join(PICTURES)}")  # fmt: skip
    parser.add_argument("--scene", type=int, default=SCENE, help="scene of FramePack Demo Image (default: %(default)s)")
    parser.add_argument("--motion", default=MOTION, help="what its shape does (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps per section (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: where the documents have them)")
    return parser.parse_args()


def draw_demo(options: argparse.Namespace) -> Iterator[Path]:
    """Write demo.webp: the demo's video as it grows, above its plan."""
    load_comfyui(options.comfyui)
    from experiments.pictures.filming import film
    from experiments.pictures.growing import Stage, moments
    from experiments.study.run import quiet_comfyui
    from experiments.study.studio import Studio
    from experiments.study.videos import HELD_OUT, Video
    from framepack_core.demo.scenes import UNSEEN
    from framepack_core.orders import INVERTED

    quiet_comfyui()
    scene = UNSEEN - HELD_OUT + options.scene
    video = Video(scene, options.motion, SECTIONS, INVERTED.name, INVERTED.layout, steps=options.steps)
    take = film(Studio(), video, say=progress())
    stage, shots = Stage(take), list(moments(take))
    path = place("docs/images/demo.webp", options)
    write_animation(path, (stage.draw(shot) for shot in shots), [shot.milliseconds for shot in shots])
    yield path


def draw_examples(options: argparse.Namespace) -> Iterator[Path]:
    """Write the thumbnails of templates and the pictures of help pages that show videos."""
    from experiments.pictures import examples

    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    with TemporaryDirectory() as folder, Server(environment, Path(folder)) as server:
        reels = examples.Reels(server)
        for name, draw in examples.PICTURES.items():
            path = place(name, options)
            with whole_file(path) as unfinished:
                draw(reels).save(unfinished, FORMATS[path.suffix], quality=QUALITY)
            yield path


def place(name: str, options: argparse.Namespace) -> Path:
    """Where a picture goes that has this path in the project."""
    path = options.output / Path(name).name if options.output else ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_animation(path: Path, pictures: Iterable[Image.Image], milliseconds: list[int]) -> None:
    """Write a WebP that repeats forever."""
    first, *others = pictures
    look = {"quality": QUALITY, "method": 4, **NO_KEY_FRAMES}
    with whole_file(path) as unfinished:
        first.save(unfinished, "WEBP", save_all=True, append_images=others, duration=milliseconds, loop=0, **look)


def plan_picture(name: str) -> Draw:
    def draw(options: argparse.Namespace) -> Iterator[Path]:
        path = place(f"docs/images/{name}.png", options)
        with whole_file(path) as unfinished:
            draw_plan(PLANS[name]).quantize(COLOURS).save(unfinished, "PNG", optimize=True)
        yield path

    return draw


def progress() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(f"  {text}, {time.monotonic() - begun:.0f} s", flush=True)


PICTURES: dict[str, Draw] = {
    **{name: plan_picture(name) for name in PLANS},
    "demo": draw_demo,
    "examples": draw_examples,
}

if __name__ == "__main__":
    sys.exit(main())
