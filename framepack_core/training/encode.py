"""From a folder of videos with captions to a cache: `python -m framepack_core.training cache VIDEOS --out CACHE`.

Each clip is written whole or not at all, and only once: a run that was killed continues where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from ..frames import latent_frames, pixel_frames
from ..media.files import whole_file
from ..weights.buckets import BASE, STEP, nearest_bucket
from .cache import EMPTY, SUFFIX, Clip, save_whole, write_clip, write_empty
from .captions import spelled, told_in
from .encoders import Demo, Encoders, Hunyuan
from .videos import BadVideo, Cut, Video, caption_of, cuts, find_videos, probe, random_cuts, read, read_captions, whole

log = logging.getLogger("framepack")

SETTINGS_FILE, TEXTS = "cache.json", "texts"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Settings:
    """How videos become clips. A cache keeps the settings it was begun with.

    All clips have this `size` (height, width); without one, each has the bucket nearest to its video at resolution `base`. A
    clip has up to `latents` latent frames, at least `shortest`. Clips start every `stride` pixel frames (0: where the last one
    ends), or `random` of them start at places that depend on `seed` and the file's name.
    """

    fps: float = 30.0
    base: int = BASE
    size: tuple[int, int] | None = None
    latents: int = 38
    shortest: int = 10
    stride: int = 0
    random: int = 0
    seed: int = 0
    encoders: str = "hunyuan"
    image: bool = True

    def __post_init__(self) -> None:
        if self.fps <= 0 or self.base < STEP or self.stride < 0 or self.random < 0:
            given = f"fps {self.fps}, base {self.base}, stride {self.stride}, random {self.random}"
            raise ValueError(f"{given}: choose fps above 0, base of {STEP} or more, and neither stride nor random below 0")
        if not 1 <= self.shortest <= self.latents:
            raise ValueError(f"latents {self.latents}, shortest {self.shortest}: choose 1 <= shortest <= latents")
        if self.size and any(side <= 0 or side % 16 for side in self.size):
            raise ValueError(f"size {self.size[0]}x{self.size[1]}: choose multiples of 16")

    def size_for(self, video: Video) -> tuple[int, int]:
        return self.size or nearest_bucket(video.height, video.width, self.base)

    def cuts_of(self, video: Video, name: str) -> list[Cut]:
        """Raises BadVideo if the video is too short."""
        frames, length, shortest = video.frames(self.fps), pixel_frames(self.latents), pixel_frames(self.shortest)
        if self.random:
            found = random_cuts(frames, length, shortest, self.random, f"{self.seed} {name}")
        else:
            found = cuts(frames, length, shortest, self.stride or length)
        if not found:
            has = f"{frames} frames at {self.fps:g} fps, {latent_frames(whole(frames))} latent frames"
            raise BadVideo(
                f"{video.path} is too short: it has {has}, but a clip has at least {self.shortest}; use a longer video, "
                "or lower --shortest"
            )
        return found


@dataclass(frozen=True)
class Job:
    """One clip to be encoded. `told` has its words by the latent frame that they count from, `caption` all of them."""

    name: str
    video: Video
    cut: Cut
    size: tuple[int, int]
    told: Mapping[int, str]
    caption: str


@dataclass
class Report:
    """The outcome: how many clips were written and found already there, and what was wrong with which files."""

    written: int = 0
    found: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, error: Exception, strict: bool) -> None:
        """Keep the problem for the end or, if `strict`, raise it at once."""
        if strict:
            raise error
        log.error("%s", error)
        self.problems.append(str(error))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Encode a folder of videos with captions, once, for training."
    parser.add_argument("videos", type=Path, help="folder of videos, with captions in <video>.txt or captions.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache; a stopped run continues there")
    parser.add_argument("--captions", type=Path, help='JSON lines {"file": ..., "caption": ...} instead of captions.jsonl')
    models = parser.add_argument_group("encoders").add_mutually_exclusive_group(required=True)
    models.add_argument("--models", type=Path, help="local copy of hunyuanvideo-community/HunyuanVideo (diffusers' layout)")
    models.add_argument("--demo", action="store_true", help="the demo's own small encoders")
    parser.add_argument(
        "--vision", type=Path, help="local copy of lllyasviel/flux_redux_bfl (SigLIP); without it there are no image embeddings"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the encoders (bf16 on a GPU, else fp32)")
    parser.add_argument("--tiled", action="store_true", help="encode pictures in parts: less memory, slower")
    clips = parser.add_argument_group("clips")
    clips.add_argument("--fps", type=float, default=Settings.fps, help="frame rate of the clips (%(default)g)")
    clips.add_argument("--base", type=int, default=Settings.base, help="base resolution of the size buckets (%(default)d)")
    clips.add_argument("--size", type=_size, metavar="WxH", help="one size for all clips instead of buckets")
    clips.add_argument("--same-size", action="store_true", help="refuse videos whose bucket is not the first one's")
    clips.add_argument("--latents", type=int, default=Settings.latents, help="latent frames of a clip (%(default)d)")
    clips.add_argument("--shortest", type=int, default=Settings.shortest, help="fewest latent frames of a clip (%(default)d)")
    places = clips.add_mutually_exclusive_group()
    places.add_argument("--stride", type=int, default=0, help="pixel frames between starts of clips (default: a clip's length)")
    places.add_argument("--random", type=int, default=0, metavar="N", help="N clips per video, at random places")
    clips.add_argument("--seed", type=int, default=0, help="seed of the random places")
    parser.add_argument("--strict", action="store_true", help="stop at the first problem")


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 if every video is in the cache, 1 if something was wrong."""
    try:
        encoders = _encoders(options)
        settings = Settings(
            options.fps, options.base, options.size, options.latents, options.shortest, options.stride, options.random,
            options.seed, encoders.name, options.demo or options.vision is not None,
        )  # fmt: skip
        report = cache_folder(
            options.videos, options.out, encoders, settings, options.captions, options.same_size, options.strict
        )
    except (ValueError, OSError) as error:
        log.error("%s", error)
        return 1
    sys.stderr.write(f"{report.written} clips written, {report.found} already there, {len(report.problems)} problems\n")
    for problem in report.problems:
        sys.stderr.write(f"  {problem}\n")
    return 1 if report.problems else 0


def cache_folder(
    videos: Path,
    out: Path,
    encoders: Encoders,
    settings: Settings,
    captions: Path | None = None,
    same_size: bool = False,
    strict: bool = False,
) -> Report:
    """Encode what the cache does not hold yet: texts first, then pictures, so that their encoders share no memory.

    A video that cannot be used is noted in the report or, if `strict`, raised. Raises ValueError if the folder holds no videos
    or the cache was begun with other settings, and OSError if the disk is full.
    """
    report = Report()
    paths, listed = find_videos(videos), read_captions(videos, captions)
    _keep_settings(out / SETTINGS_FILE, settings)
    jobs = list(_jobs(paths, videos, listed, settings, same_size, strict, report))
    pending = [job for job in jobs if not _finished(out, job)]
    report.found = len(jobs) - len(pending)
    if pending or (jobs and not (out / f"{EMPTY}{SUFFIX}").exists()):
        _encode_texts(out, encoders, ["", *(words for job in pending for words in job.told.values())])
        write_empty(out, *_text(out, ""))
    if pending:
        _encode_pictures(out, encoders, settings, pending, strict, report)
    if not report.problems:
        shutil.rmtree(out / TEXTS, ignore_errors=True)
    return report


def _jobs(
    paths: Iterable[Path],
    folder: Path,
    listed: dict[Path, str],
    settings: Settings,
    same_size: bool,
    strict: bool,
    report: Report,
) -> Iterator[Job]:
    """The clips of all videos that can be used; the others are noted."""
    expected: tuple[int, int] | None = None
    names: dict[str, Path] = {}
    for path in tqdm(paths, desc="looking at videos", unit="video", mininterval=1):
        try:
            name = path.relative_to(folder).as_posix().replace("/", "__")
            if (other := names.setdefault(name, path)) != path:
                raise BadVideo(f"{path} and {other} would be the same clip {name}; rename one of them")
            caption = caption_of(path, listed)
            video = probe(path)
            found = settings.cuts_of(video, name)
            told = [_told(caption, video, cut, settings.fps) for cut in found]
            size = settings.size_for(video)
            expected = expected or size
            if same_size and size != expected:
                raise BadVideo(f"{path} would be {_spelled(size)}, but the videos before are {_spelled(expected)}; "
                               "crop it, set one --size for all, or leave out --same-size")  # fmt: skip
        except BadVideo as error:
            report.note(error, strict)
            continue
        for cut, words in zip(found, told, strict=True):
            yield Job(f"{name}-{cut.start:06d}", video, cut, size, words, spelled(words, settings.fps))


def _told(caption: str, video: Video, cut: Cut, fps: float) -> dict[int, str]:
    try:
        return told_in(caption, video.seconds, cut, fps)
    except ValueError as error:
        raise BadVideo(f"{video.path}'s caption: {error}") from error


def _encode_texts(out: Path, encoders: Encoders, captions: Iterable[str]) -> None:
    """Encode each different caption once, into a folder that the stage for pictures reads."""
    missing = [caption for caption in dict.fromkeys(captions) if not _text_file(out, caption).exists()]
    if not missing:
        return
    encoder = encoders.text()
    for caption in tqdm(missing, desc="captions", unit="caption", mininterval=1):
        text, pooled = encoder.encode(caption)
        save_whole(_text_file(out, caption), {"text": text.cpu(), "pooled": pooled.cpu()}, {"caption": caption})


def _encode_pictures(out: Path, encoders: Encoders, settings: Settings, jobs: list[Job], strict: bool, report: Report) -> None:
    encoder = encoders.pictures()
    for job in tqdm(jobs, desc="clips", unit="clip", mininterval=1):
        try:
            pixels = read(job.video, job.cut, settings.fps, job.size)
            image = encoder.image(pixels[0]) if settings.image else None
            first, *later = ((frame, _text(out, words)) for frame, words in job.told.items())
            clip = Clip(encoder.latents(pixels), *first[1], image, job.caption, dict(later))
            write_clip(out, job.name, clip)
            report.written += 1
        except ValueError as error:
            report.note(error, strict)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"{job.video.path} at {_spelled(job.size)} does not fit into memory ({error}); "
                             "encode with --tiled, or at a smaller --base") from error  # fmt: skip


def _text(out: Path, caption: str) -> tuple[Tensor, Tensor]:
    tensors = load_file(_text_file(out, caption))
    return tensors["text"], tensors["pooled"]


def _text_file(out: Path, caption: str) -> Path:
    return out / TEXTS / f"{hashlib.sha256(caption.encode()).hexdigest()[:32]}{SUFFIX}"


def _finished(out: Path, job: Job) -> bool:
    """Whether the cache holds this clip, with this caption."""
    try:
        with safe_open(out / f"{job.name}{SUFFIX}", framework="pt") as file:
            _, T, H, W = file.get_slice("latents").get_shape()
            shape = (latent_frames(job.cut.frames), job.size[0] // 8, job.size[1] // 8)
            return shape == (T, H, W) and file.metadata().get("caption") == job.caption
    except (SafetensorError, OSError):
        return False


def _keep_settings(file: Path, settings: Settings) -> None:
    """Write the settings of a new cache. Raises ValueError if it was begun with others."""
    now = json.loads(json.dumps(asdict(settings)))
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(now, indent=1), encoding="utf-8")
        return
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
        changed = [f"{name} {begun.get(name)!r} is now {value!r}" for name, value in now.items() if begun.get(name) != value]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read ({error}); delete the folder and cache again") from error
    if changed:
        raise ValueError(
            f"{file}: the cache was begun with other settings ({', '.join(changed)}); keep them, or choose another --out"
        )


def _encoders(options: argparse.Namespace) -> Encoders:
    if options.demo:
        return Demo(device=options.device)
    dtype = DTYPES[options.dtype or ("bf16" if options.device.startswith("cuda") else "fp32")]
    return Hunyuan(options.models, options.vision, options.device, dtype, options.tiled)


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like 832x480 (width, height)") from None
    return height, width


def _spelled(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
