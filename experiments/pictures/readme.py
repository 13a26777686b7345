"""Draws the pictures of the documents that code makes. Run by scripts/pictures.py."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from framepack_core.drawing.painting import draw_plan
from framepack_core.media.files import whole_file
from framepack_core.plan import Plan
from scripts.support.pack import load_comfyui

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"

# FramePack Demo Image has this scene under SCENE; the sampler's seed is the scene's own, 3,000,000 more.
SCENE, MOTION, SECTIONS, STEPS = 110, "bounce", 4, 10

QUALITY = 85
NO_KEY_FRAMES = {"kmin": 9998, "kmax": 9999}  # whole pictures, of which the encoder makes one in seventeen otherwise

COLOURS = 64  # of a drawing of a plan: half the bytes

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
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        path = PICTURES[name](options)
        print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/pictures.py", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=list(PICTURES), choices=PICTURES, metavar="NAME",
                        help=f"some of {', '.join(PICTURES)}")  # fmt: skip
    parser.add_argument("--scene", type=int, default=SCENE, help="another scene of FramePack Demo Image (default: %(default)s)")
    parser.add_argument("--motion", default=MOTION, help="what its shape does (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of a section (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=IMAGES, help="the folder to write to (default: docs/images)")
    return parser.parse_args()


def draw_demo(options: argparse.Namespace) -> Path:
    """demo.webp: the demo's video as it grows, above its plan."""
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
    path = options.output / "demo.webp"
    write_animation(path, (stage.draw(shot) for shot in shots), [shot.milliseconds for shot in shots])
    return path


def write_animation(path: Path, pictures: Iterable[Image.Image], milliseconds: list[int]) -> None:
    """A WebP that starts again when it ends."""
    first, *others = pictures
    look = {"quality": QUALITY, "method": 4, **NO_KEY_FRAMES}
    with whole_file(path) as unfinished:
        first.save(unfinished, "WEBP", save_all=True, append_images=others, duration=milliseconds, loop=0, **look)


def plan_picture(name: str) -> Callable[[argparse.Namespace], Path]:
    def draw(options: argparse.Namespace) -> Path:
        path = options.output / f"{name}.png"
        with whole_file(path) as unfinished:
            draw_plan(PLANS[name]).quantize(COLOURS).save(unfinished, "PNG", optimize=True)
        return path

    return draw


def progress() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(f"  {text}, {time.monotonic() - begun:.0f} s", flush=True)


PICTURES: dict[str, Callable[[argparse.Namespace], Path]] = {
    **{name: plan_picture(name) for name in PLANS},
    "demo": draw_demo,
}

if __name__ == "__main__":
    sys.exit(main())
