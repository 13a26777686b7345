"""Single pictures against the world's truth: where the shape is at growing time indices. Run by `scripts/bench.py oneframe`.

A server makes pictures of the demo's world with FramePack One Frame, from a start image alone. The latent frame of an index
stands for four frames of the world's video, and a shape's distance is to the nearest of its places there. Scenes in which it
is cut off or hidden by then are left out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.benchmarks.frames import node, save, scene_of
from experiments.measures.tracks import follow
from experiments.study.videos import HELD_OUT
from framepack_core.demo.world import Scene
from framepack_core.frames import pixel_frames
from scripts.support.environment import Environment
from scripts.support.server import Prompt, Server

INDICES = (1, 3, 5, 7, 9, 12)


class Place(NamedTuple):
    """How far the shape is from where the world has it, in pixels, and its fit with a perfect one there; None where it is lost,
    or cut off."""

    distance: float | None
    fit: float | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py oneframe", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scenes", type=int, default=24, help="scenes of the world (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="steps of a picture (default: %(default)s)")
    options = parser.parse_args()
    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    found: dict[int, list[Place]] = {index: [] for index in INDICES}
    with TemporaryDirectory() as folder, Server(environment, Path(folder)) as server:
        for number in range(options.scenes):
            for index, place in places(server, number, options.steps):
                found[index].append(place)
    print("index | scenes | pixels off: median (nine in ten) | fit: median | lost")
    for index in INDICES:
        print(index, *figures(found[index]), sep=" | ")
    return 0


def places(server: Server, number: int, steps: int) -> Iterator[tuple[int, Place]]:
    """Of every index at which the world shows the whole first shape."""
    scene = scene_of(number)
    world = scene.render(pixel_frames(1 + INDICES[-1]))
    shown = [index for index in INDICES if follow(world[shown_by(index)], scene)[0].whole.all()]
    entry = server.run(prompt_of(server, scene, world, HELD_OUT + number, shown, steps))
    for file in server.output_files(entry):
        index = int(file.name.split("_")[0])
        yield index, place(np.array(Image.open(file).convert("RGB")), scene, world[shown_by(index)])


def shown_by(index: int) -> slice:
    """The frames that a latent frame after the first stands for."""
    return slice(pixel_frames(index), pixel_frames(1 + index))


def prompt_of(server: Server, scene: Scene, world: np.ndarray, seed: int, indices: Sequence[int], steps: int) -> Prompt:
    """A picture for each index, in a file whose name begins with it."""
    save(world[:1], server.base / "input" / "start.png")
    model, clip, vae, vision = (["demo", slot] for slot in range(4))
    prompt: Prompt = {
        "demo": node("FramePack_LoadDemo"),
        "text": node("CLIPTextEncode", clip=clip, text=scene.caption),
        "image": node("LoadImage", image="start.png"),
        "start": node("FramePack_Place", images=["image", 0], vae=vae, at="start", seconds=0.0, use="fixed",
                      clip_vision=vision, base_resolution=world.shape[1]),
    }  # fmt: skip
    for index in indices:
        picture, frame = f"picture {index}", f"frame {index}"
        settings = {"seed": seed, "steps": steps, "cfg": 1.0, "guidance": 10.0, "shift": 0.0, "sampler": "auto"}
        prompt[picture] = node("FramePack_OneFrame", model=model, positive=["text", 0], frames=["start", 0],
                               target_index=index, history="full", **settings)  # fmt: skip
        prompt[frame] = node("FramePack_Decode", latent=[picture, 0], vae=vae)
        prompt[f"file {index}"] = node("SaveImage", images=[frame, 0], filename_prefix=str(index))
    return prompt


def place(picture: np.ndarray, scene: Scene, world: np.ndarray) -> Place:
    """Of a picture `H W 3` beside the world's frames `4 H W 3`."""
    (found, *_), (truth, *_) = follow(picture[None], scene), follow(world, scene)
    if not found.seen[0]:
        return Place(None, None)
    distance = float(np.hypot(truth.x - found.x[0], truth.y - found.y[0]).min())
    return Place(distance, float(found.fit[0]) if found.whole[0] else None)


def figures(places: Sequence[Place]) -> tuple[str, ...]:
    distances = sorted(place.distance for place in places if place.distance is not None)
    fits = [place.fit for place in places if place.fit is not None]
    most = distances[math.ceil(0.9 * len(distances)) - 1] if distances else None
    return (
        str(len(places)),
        f"{statistics.median(distances):.1f} ({most:.1f})" if distances else "-",
        f"{statistics.median(fits):.2f}" if fits else "-",
        str(len(places) - len(distances)),
    )


if __name__ == "__main__":
    sys.exit(main())
