"""Frames that are given of a video, and what is made beside them, against the world's truth. Run by `scripts/bench.py frames`.

Every way to give frames runs through a server on the demo's models and ends in an MP4, which is opened. What is given is cut
from a video of the demo's world, so that what is made should go through it as the world does.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from experiments.measures import motions
from experiments.measures.tracks import Track, follow
from experiments.study.videos import HELD_OUT, motion_of
from framepack_core.demo.vae import DemoVAE
from framepack_core.demo.world import FPS, Scene
from framepack_core.frames import PIXEL_FRAMES
from framepack_core.measures.series import Series
from scripts.support.environment import ROOT, Environment
from scripts.support.server import Prompt, Server

WEIGHTS = ROOT / "framepack_core" / "demo" / "weights" / "demo_vae.safetensors"
WINDOW = 9
SECTION = PIXEL_FRAMES * WINDOW  # frames
STILL = 1 + PIXEL_FRAMES  # of the same picture are encoded for a still in mid-video
VISIBLE = 1.5  # times the usual step from one latent frame to the next
TRAVELS = 2.0  # pixels in a latent frame; of what moves less, the step at a join says nothing
CRF, PIXELS = 10, "yuv444p"  # which blur less than the VAE does
LONGEST = 4 * SECTION + 1
SPREADS = tuple(f"{what}: median (largest) | up to {VISIBLE}" for what in ("joins", "joins / made", "shape's steps"))


class Piece(NamedTuple):
    """Frames `first` to `stop` - 1 of the world's video, which are the same of the one that is made. A still, which has only
    one picture, is seen in all of them. A guide is shown to the section that makes them."""

    at: str
    first: int
    stop: int
    still: bool = False
    use: str = "fixed"

    @property
    def picture(self) -> int:
        return (self.first + self.stop - 1) // 2

    def of(self, world: np.ndarray) -> np.ndarray:
        """What is given: a clip after the start begins one frame earlier, which is left out of the video."""
        if self.still:
            return world[self.picture : self.picture + 1]
        return world[self.first - (self.at != "start") : self.stop]


@dataclass(frozen=True)
class Way:
    """`joins` are the frames with which a section begins, or what is given, and `made` is the number of sections."""

    name: str
    joins: tuple[int, ...]
    given: tuple[Piece, ...] = ()
    orders: tuple[str, ...] = ("inverted", "forward", "endpoints")
    made: int = 2
    loop: bool = False
    again: bool = False

    @property
    def fixed(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.given if piece.use == "fixed")

    @property
    def frames(self) -> int:
        ends = [piece.stop for piece in self.given if piece.at == "end"]
        return ends[0] if ends else self.joins[-1] + (0 if self.loop else SECTION)


START = Piece("start", 0, 1, still=True)
CLIP = Piece("start", 0, SECTION + 1)
AHEAD = ("inverted", "endpoints")  # orders that look ahead
A, B, C = (SECTION * number + 1 for number in (1, 2, 3))  # frames with which sections begin after a start image
WAYS = (
    Way("image to video", (A,), (START,)),
    Way("first and last frame", (A, B), (START, Piece("end", B, B + PIXEL_FRAMES, still=True)), AHEAD),
    Way("a still in mid-video", (A, A + PIXEL_FRAMES), (START, Piece("time", A, A + PIXEL_FRAMES, still=True)), AHEAD),
    Way("a guide in the middle", (A,), (START, Piece("time", A, B, still=True, use="guide")), ("inverted", "forward")),
    Way("a clip is continued", (A, B), (CLIP,)),
    Way("a clip is led up to", (A - 4, B - 4), (Piece("end", B - 4, C - 4),), AHEAD),
    Way("between two clips", (A, B, C), (CLIP, Piece("end", C, C + SECTION)), AHEAD),
    Way("a section is made again", (A, B), (START,), AHEAD, made=3, again=True),
    Way("loop", (SECTION, 2 * SECTION, 3 * SECTION), (START,), loop=True),
    Way("text to video", (A - 4,)),
)


@dataclass(frozen=True)
class Found:
    """Of one video: its joins beside the usual step of all frames and of those that are made, the steps of its first shape at
    them, the PSNR of what was given less that of the VAE (dB), in
    the world's video and alone, whether the shape obeys, and how far its colour is from the start's (Lab). None where nothing
    was given to compare with, or where the shape is lost."""

    joins: tuple[float, ...]
    made_joins: tuple[float, ...]
    strides: tuple[float, ...]
    given: float | None
    alone: float | None
    obeys: bool | None
    colour: float | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py frames", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scenes", type=int, default=12, help="scenes of the world (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="steps per section (default: %(default)s)")
    options = parser.parse_args()
    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    with TemporaryDirectory() as folder, Server(environment, Path(folder)) as server:
        print("way, order", *SPREADS, "given, dB", "given alone, dB", "obeys", "colour", sep=" | ")
        for way in WAYS:
            if not way.loop:
                report(way, "the world's own video", [own(way, number) for number in range(options.scenes)])
            for order in way.orders:
                report(way, order, [film(server, way, order, number, options.steps) for number in range(options.scenes)])
    return 0


def own(way: Way, number: int) -> Found:
    """Of the world's video through the VAE and the codec, which nothing was made for."""
    scene = scene_of(number)
    world = scene.render(LONGEST)
    return replace(found(way, scene, world, through_vae(world[: way.frames])), given=None, alone=None)


def film(server: Server, way: Way, order: str, number: int, steps: int) -> Found:
    """Of the file that a server makes."""
    scene = scene_of(number)
    world = scene.render(LONGEST)
    return found(way, scene, world, made(server, prompt_of(server, way, order, scene, world, HELD_OUT + number, steps)))


def made(server: Server, prompt: Prompt) -> np.ndarray:
    """Frames uint8 `F H W 3` of the file that a prompt ends in."""
    entry = server.run(prompt, timeout=7200)
    (file,) = (file for file in server.output_files(entry) if file.suffix == ".mp4")
    return opened(file)


def scene_of(number: int) -> Scene:
    seed = HELD_OUT + number
    return Scene.draw(seed).with_motion(motion_of(number), seed)


def prompt_of(server: Server, way: Way, order: str, scene: Scene, world: np.ndarray, seed: int, steps: int) -> Prompt:
    """The demo's models, what is given in a chain of FramePack Place, and a sampler and a file for it."""
    model, clip, vae = (["demo", slot] for slot in range(3))
    plan = {"seconds": way.made * SECTION / FPS, "order": order, "window": WINDOW, "layout": "auto", "fps": float(FPS)}
    sampler = {"model": model, "positive": ["text", 0], "plan": ["plan", 0], "seed": seed, "steps": steps, "cfg": 1.0,
               "guidance": 10.0, "shift": 0.0, "sampler": "unipc_bh1", "resume": False}  # fmt: skip
    prompt: Prompt = {
        "demo": node("FramePack_LoadDemo"),
        "text": node("CLIPTextEncode", clip=clip, text=scene.caption),
        "plan": node("FramePack_Plan", **plan, loop=int(way.loop)),
    }
    places, frames = placed(way, world, server.base / "input")
    prompt |= places
    prompt["sampler"] = node("FramePack_Sampler", **sampler, **frames)
    last = "sampler"
    if way.again:
        prompt["redo"] = node("FramePack_Redo", latent=["sampler", 0], plan=["plan", 0], sections="2")
        other = sampler | {"plan": ["redo", 0], "frames": ["redo", 1], "seed": seed + 1}
        prompt["again"] = node("FramePack_Sampler", **other)
        last = "again"
    prompt["file"] = node("FramePack_SaveVideo", latent=[last, 0], vae=vae, fps=float(FPS), filename_prefix="frames",
                          crf=CRF, pixel_format=PIXELS)  # fmt: skip
    return prompt


def placed(way: Way, world: np.ndarray, folder: Path) -> tuple[Prompt, dict]:
    """Nodes with what is given, from files in a folder, and the sampler's input that it goes to."""
    prompt: Prompt = {}
    height, width = world.shape[1:3]
    if not way.given:
        prompt["empty"] = node("EmptyHunyuanLatentVideo", width=width, height=height, length=1, batch_size=1)
        return prompt, {"latent_image": ["empty", 0]}
    frames: dict = {}
    for piece in way.given:
        name = f"{piece.at}.png"
        save(piece.of(world), folder / name)
        seconds = piece.picture / FPS if piece.at == "time" else 0.0
        prompt[f"image {name}"] = node("LoadImage", image=name)
        prompt[name] = node("FramePack_Place", images=[f"image {name}", 0], vae=["demo", 2], clip_vision=["demo", 3],
                            at=piece.at, seconds=seconds, use=piece.use, base_resolution=height, fps=float(FPS),
                            **frames)  # fmt: skip
        frames = {"frames": [name, 0]}
    return prompt, frames


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def save(frames: np.ndarray, file: Path) -> None:
    """As a PNG, an animated one of several, of which ComfyUI's LoadImage makes a batch."""
    first, *others = map(Image.fromarray, frames)
    first.save(file, save_all=bool(others), append_images=others)


def opened(file: Path | BytesIO) -> np.ndarray:
    """Frames uint8 `F H W 3`."""
    with av.open(file, "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def found(way: Way, scene: Scene, world: np.ndarray, frames: np.ndarray) -> Found:
    if not way.given:  # its background is no scene's
        steps = tuple(joins(way, frames))
        return Found(steps, steps, (), None, None, None, None)
    (track, *_), (start, *_) = follow(frames, scene), follow(world[:1], scene)
    given = () if way.loop else way.fixed
    return Found(
        tuple(joins(way, frames)),
        tuple(joins(way, frames, among_made=True)),
        tuple(strides(way, track)),
        min((kept(way, piece, world, frames) for piece in given), default=None),
        min((kept_alone(piece, world, frames) for piece in given), default=None),
        motions.obeys(scene.actors[0].motion, track),
        None if motions.lost(track) else motions.colour_distance(track, start),
    )


def joins(way: Way, frames: np.ndarray, among_made: bool = False) -> list[float]:
    """The picture's change at the joins as ratios to its median elsewhere, or only within what is made: given clips, which the
    model did not draw, hardly change from frame to frame. Of a loop, the last is the step from its end to its beginning."""
    shown = np.concatenate([frames, frames[:1]]) if way.loop else frames
    others = elsewhere(way, len(shown))
    if among_made:
        others = [frame for frame in others if not any(piece.first <= frame < piece.stop for piece in way.fixed)]
    return Series.of(shown).joins(way.joins, others).tolist()


def elsewhere(way: Way, frames: int) -> list[int]:
    """The frames with which latent frames begin, but for the joins."""
    return [frame for frame in range(PIXEL_FRAMES if way.loop else 1, frames, PIXEL_FRAMES) if frame not in way.joins]


def strides(way: Way, track: Track) -> list[float]:
    """How far the shape goes in the four frames around each join, as a ratio to the median around other beginnings of latent
    frames; only of joins around which all of it is seen, and only if it travels."""
    places = np.where(track.whole, [track.x, track.y], np.nan)

    def around(frame: int) -> float:
        before, after = (frame + side for side in (-PIXEL_FRAMES // 2, PIXEL_FRAMES // 2))
        if not way.loop and not 0 <= before < after < track.frames:
            return math.nan
        return float(np.hypot(*(places[:, after % track.frames] - places[:, before % track.frames])))

    others = [step for frame in elsewhere(way, track.frames) if not math.isnan(step := around(frame))]
    usual = statistics.median(others) if others else 0.0
    return [step / usual for join in way.joins if usual >= TRAVELS and not math.isnan(step := around(join))]


def kept(way: Way, piece: Piece, world: np.ndarray, frames: np.ndarray) -> float:
    """How much nearer to what was given its frames are than in the world's video after the VAE and the codec."""
    video = held(way, world)
    part = slice(piece.first, piece.stop)
    return psnr(frames[part], video[part]) - psnr(through_vae(video)[part], video[part])


def held(way: Way, world: np.ndarray) -> np.ndarray:
    """The world's video in which the stills that are given stand still."""
    video = world[: way.frames].copy()
    for piece in way.fixed:
        if piece.still:
            video[piece.first : piece.stop] = world[piece.picture]
    return video


def kept_alone(piece: Piece, world: np.ndarray, frames: np.ndarray) -> float:
    """How much nearer to what was given its frames are than after the VAE and the codec alone. The first one of what is not at
    the start blends with the frame before it, which is not there then."""
    given = piece.of(world)
    if piece.at == "start":
        return psnr(frames[piece.first : piece.stop], given) - psnr(through_vae(given), given)
    whole = np.repeat(given, STILL, axis=0) if piece.still else given
    return psnr(frames[piece.first + 1 : piece.stop], whole[2:]) - psnr(through_vae(whole)[2:], whole[2:])


def through_vae(frames: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        video = torch.from_numpy(frames[None]).movedim(-1, 1) / 127.5 - 1
        decoded = vae().decode(vae().encode(video))[0].movedim(0, -1)
    return through_codec(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())


def through_codec(frames: np.ndarray) -> np.ndarray:
    """As FramePack Save Video encodes them."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(CRF)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], PIXELS
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    return opened(file)


@cache
def vae() -> DemoVAE:
    demo = DemoVAE().eval()
    demo.load_state_dict(load_file(WEIGHTS))
    return demo.requires_grad_(False)


def psnr(frames: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(((frames / 255 - truth / 255) ** 2).mean()))


def report(way: Way, order: str, videos: Sequence[Found]) -> None:
    given, alone, obeyed, colours = (
        [value for video in videos if (value := getattr(video, name)) is not None]
        for name in ("given", "alone", "obeys", "colour")
    )
    print(
        f"{way.name}, {order}",
        spread([step for video in videos for step in video.joins]),
        spread([step for video in videos for step in video.made_joins]),
        spread([step for video in videos for step in video.strides]),
        nearness(given),
        nearness(alone),
        f"{sum(obeyed)}/{len(obeyed)}" if obeyed else "-",
        f"{statistics.median(colours):.1f}" if colours else "-",
        sep=" | ",
        flush=True,
    )


def nearness(decibels: Sequence[float]) -> str:
    return f"{statistics.median(decibels):+.1f} (least {min(decibels):+.1f})" if decibels else "-"


def spread(steps: Sequence[float]) -> str:
    """Median, largest, and how many of them cannot be seen."""
    if not steps:
        return "- | -"
    return f"{statistics.median(steps):.2f} ({max(steps):.2f}) | {sum(step <= VISIBLE for step in steps)}/{len(steps)}"


if __name__ == "__main__":
    sys.exit(main())
