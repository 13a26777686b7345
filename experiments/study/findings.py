"""What is recorded about a video: plain numbers, measured on its frames."""

from __future__ import annotations

import math

import numpy as np

from experiments.measures import drift, motions
from experiments.measures.tracks import Track, follow
from experiments.study.videos import WINDOW, Video
from framepack_core.demo.world import MOTIONS, Scene
from framepack_core.frames import PIXEL_FRAMES

EVERY = 4  # frames: averages over a section use one frame in four


def findings(video: Video, frames: np.ndarray) -> dict:
    """Obedience, colour, identity, comeback, motion, drift and joins of a video's frames."""
    scene = video.told
    tracks, starts = follow(frames, scene), follow(scene.render(1), scene)
    first, start = tracks[0], starts[0]
    return {
        "obeys": [_obeys(actor.motion, track) for actor, track in zip(scene.actors, tracks, strict=True)],
        "halves": _halves(video, first),
        "looks_like": [motion for motion in MOTIONS if motions.obeys(motion, first)],
        "lost": [motions.lost(track) for track in tracks],
        "color": [_colour(*pair) for pair in zip(tracks, starts, strict=True)],
        "same_kind": motions.same_kind(first),
        "fit": motions.fit(first),
        "speed": motions.speed(first),
        "comeback": _comeback(first),
        "motion": drift.motion(frames),
        "flow": drift.flow(frames),
        "joins": drift.joins(frames, borders(video)),
        "drift": drift.drift(frames),
        "by_section": [_look(frames, part, first, start) for part in sections(video)],
    }


def borders(video: Video) -> list[int]:
    """Latent frames that open a section after another one."""
    return [1 + WINDOW * number for number in range(1, video.sections)]


def sections(video: Video) -> list[slice]:
    """Pixel frames of each section, in the video's time."""
    length = PIXEL_FRAMES * WINDOW
    return [slice(1 + length * number, 1 + length * (number + 1)) for number in range(video.sections)]


def vae_quality(scene: Scene, frames: np.ndarray, decoded: np.ndarray) -> dict:
    """PSNR in dB of whole frames and inside the shapes' boxes."""
    error = (frames / 255.0 - decoded / 255.0) ** 2
    inside = np.stack([_boxes(scene, frame, frames.shape[1:3]) for frame in range(len(frames))])
    return {"psnr": _decibel(error.mean()), "psnr_inside": _decibel(error[inside].mean())}


def _halves(video: Video, track: Track) -> list[bool | None]:
    """Whether the first shape does in each half what the video is told there."""
    parts = (video.motion, track[: video.middle]), (video.then or video.motion, track[video.middle :])
    return [_obeys(motion, part) for motion, part in parts]


def _obeys(motion: str, track: Track) -> bool | None:
    """None for a shape behind another one."""
    return None if motions.hidden(track) else motions.obeys(motion, track)


def _colour(track: Track, start: Track) -> float | None:
    return None if motions.lost(track) else motions.colour_distance(track, start)


def _comeback(track: Track) -> dict | None:
    found = motions.comeback(track)
    return None if found is None else {"color": found.colour, "fit": found.fit_after, "same": found.same, "away": found.away}


def _look(frames: np.ndarray, part: slice, track: Track, start: Track) -> dict:
    """A section compared with the start image: the shape's colour, the picture's mean colour, and its sharpness."""
    here, first = drift.averages(frames[part][::EVERY]), drift.averages(frames[:1])
    return {
        "color": motions.colour_distance(track[part], start),
        "lab": float((here["lab_mean"] - first["lab_mean"]).norm()),
        "sharpness": float(here["laplacian"] / first["laplacian"]),
    }


def _boxes(scene: Scene, frame: int, size: tuple[int, int]) -> np.ndarray:
    """A mask of the shapes' bounding boxes, with 2 pixels around them."""
    inside = np.zeros(size, bool)
    for place in scene.truth(frame):
        rows, columns = (
            slice(max(int(at - place.radius - 2), 0), max(int(at + place.radius + 2), 0)) for at in (place.y, place.x)
        )
        inside[rows, columns] = True
    return inside


def _decibel(squared_error: float) -> float:
    return -10 * math.log10(squared_error)
