"""Makes videos with the demo model, several at once, and measures them."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from comfy.samplers import KSAMPLER
from torch import Tensor

from experiments.study.errors import Elsewhere, Tinted, direction
from experiments.study.videos import Video
from framepack_core.caching import SectionCache, Skipping
from framepack_core.comfyui.decoding.stream import decode_video
from framepack_core.comfyui.demo import TEXT, TRANSFORMER, VAE, VISION, load_demo, weights_file
from framepack_core.comfyui.encoding import encode_images
from framepack_core.comfyui.sampling.cache import with_cache
from framepack_core.comfyui.sampling.colour import ColourAnchor
from framepack_core.comfyui.sampling.denoise import Callback, GuiderDenoiser, with_conditions
from framepack_core.comfyui.sampling.request import Given, make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.comfyui.sampling.timed import Told, with_time
from framepack_core.demo.scenes import picture
from framepack_core.demo.world import FPS, Scene
from framepack_core.filling import Section
from framepack_core.frames import Length, pixel_frames
from framepack_core.media.video import pixels
from framepack_core.prompts import Span
from framepack_core.sections import Denoise, Draw, drawing, fill
from framepack_core.timeline import Timeline

GUIDANCE = 10.0


@dataclass(frozen=True)
class Sampled:
    """Latents `B 16 T H W` of videos made together, the seconds that each section took, and the share of the model's calls
    that were made, which is less than 1 with a cache."""

    latents: Tensor
    seconds: tuple[float, ...]
    calls: float


@dataclass(frozen=True)
class Shot:
    """Frames of videos made together, each uint8 `F 128 128 3`, and the share of calls as in Sampled."""

    clips: Sequence[np.ndarray]
    calls: float = 1.0


class Studio:
    """The demo's four models, loaded once."""

    def __init__(self) -> None:
        self.model, self.clip, self.vae, self.vision = load_demo()

    def shoot(self, videos: Sequence[Video]) -> Shot:
        """Videos with the same `batch`."""
        source = videos[0].source
        if source == "model":
            sampled = self.sample(videos)
            return Shot([self.decode(latents[None]) for latents in sampled.latents], sampled.calls)
        frames = pixel_frames(1 + videos[0].generated)
        rendered = [video.told.render(frames) for video in videos]
        return Shot(rendered if source == "world" else [self.through_vae(clip) for clip in rendered])

    def sample(
        self,
        videos: Sequence[Video],
        each: Callable[[], None] = lambda: None,
        watch: Callable[[Section], Callback | None] = lambda section: None,
    ) -> Sampled:
        """Sample videos with the same `batch` together. Each has the noise that its own seed would give it alone; `each` is
        called after every section, and what `watch` returns for a section after each of its steps."""
        first = videos[0]
        timeline = Given({"samples": self.starts(videos)}).timeline(first.plan)
        sections = first.plan.bind(timeline)
        caches: list[SectionCache] = []
        guider = self.guider(videos, self.cached(first.cache, caches.append))
        denoise = GuiderDenoiser(
            guider,
            sampler_drawing_own(videos),
            section_sigmas(sections, timeline, first.steps, first.shift),
            0,
            watch,
            conditions=Told.of(guider.original_conds, sections, Length(1 + first.generated), FPS).conditions,
        )
        seconds, begun = [], time.perf_counter()
        for _ in fill(sections, timeline, drawing_own(videos, timeline), self.changed(denoise, videos, timeline)):
            seconds.append(time.perf_counter() - begun)
            each()
            begun = time.perf_counter()
        asked = sum(cache.calls for cache in caches)
        return Sampled(timeline.latents, tuple(seconds), 1 - sum(cache.skipped for cache in caches) / asked if asked else 1.0)

    def changed(self, denoise: Denoise[Tensor], videos: Sequence[Video], timeline: Timeline) -> Denoise[Tensor]:
        """The `denoise` callable with what the videos change in what a section sees and in what becomes of it."""
        video = videos[0]
        if video.sees == "world":
            denoise = Elsewhere(denoise, self.world(videos))
        if video.colour_anchor:
            denoise = ColourAnchor(denoise, timeline, video.colour_anchor)
        if video.error:
            tint = video.error * direction(timeline.latents.shape[1])
            denoise = Tinted(denoise, self.model.model.process_latent_out(tint))
        return denoise

    def cached(self, threshold: float, done: Callable[[SectionCache], None]):
        """The model, with FramePack Cache at a threshold above 0."""
        return with_cache(self.model, "easycache", Skipping(threshold), done) if threshold else self.model

    def guider(self, videos: Sequence[Video], model):
        """Conditions whose rows are the videos' prompts and pictures."""
        conditioning = self.conditioning([video.told for video in videos])
        if videos[0].then:
            middle = videos[0].middle / FPS
            later = self.conditioning([video.told_then for video in videos])
            conditioning = [*with_time(conditioning, Span(0, middle)), *with_time(later, Span(middle))]
        guider = make_guider(model, conditioning, None, 1.0, GUIDANCE)
        seen = [self.vision.encode_image(picture(video.told), crop=False)["last_hidden_state"] for video in videos]
        return with_conditions(guider, clip_vision_output={"last_hidden_state": torch.cat(seen)})

    def conditioning(self, scenes: Sequence[Scene]) -> list:
        encoded = [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(scene.caption))[0] for scene in scenes]
        text, pooled = (
            torch.cat(rows) for rows in zip(*((text, extra["pooled_output"]) for text, extra in encoded), strict=True)
        )
        return [[text, {"pooled_output": pooled}]]

    def starts(self, videos: Sequence[Video]) -> Tensor:
        return torch.cat([encode_images(self.vae, picture(video.told)) for video in videos])

    def world(self, videos: Sequence[Video]) -> Timeline:
        """What the world itself would show, after the same starts."""
        frames = pixel_frames(1 + videos[0].generated)
        timeline = Timeline(torch.cat([self.encode(video.told.render(frames)) for video in videos]))
        timeline.write([0], self.starts(videos))
        return timeline

    def decode(self, latents: Tensor) -> np.ndarray:
        """Frames uint8 `F H W 3` of one video's latents."""
        return np.stack(list(pixels(decode_video(self.vae, latents))))

    def encode(self, frames: np.ndarray) -> Tensor:
        """Latents `1 16 T H W` of one video's frames uint8 `F H W 3`."""
        return self.vae.encode(torch.from_numpy(frames) / 255)

    def through_vae(self, frames: np.ndarray) -> np.ndarray:
        return self.decode(self.encode(frames))


def drawing_own(videos: Sequence[Video], timeline: Timeline) -> Draw[Tensor]:
    """What draws a section's noise for each video as its own seed would give it alone."""
    draws = [drawing(Timeline(timeline.latents[:1]), video.seed) for video in videos]
    return lambda section: torch.cat([draw(section) for draw in draws])


def sampler_drawing_own(videos: Sequence[Video]) -> KSAMPLER:
    """The videos' sampler; one that adds noise draws for each video what its own seed would give it alone."""
    sampler = sampler_named(videos[0].sampler)
    sample = sampler.sampler_function
    if "noise_sampler" not in inspect.signature(sample).parameters:
        return sampler
    generators = [torch.Generator().manual_seed(video.seed + 1) for video in videos]

    def sample_own(model: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
        def noise(*_: Tensor) -> Tensor:
            return torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators]).to(x)

        return sample(model, x, *args, noise_sampler=noise, **options)

    return KSAMPLER(sample_own, sampler.extra_options)


def fingerprint() -> str:
    """A hash of the demo's weights, since results of other weights are other results."""
    digest = hashlib.sha256()
    for name in (TRANSFORMER, VAE, TEXT, VISION):
        digest.update(weights_file(name).read_bytes())
    return digest.hexdigest()[:16]
