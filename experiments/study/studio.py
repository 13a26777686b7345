"""Makes videos with the demo model, several at once, and measures them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.study.videos import Video
from framepack_core.comfyui.decoding.stream import decode_video
from framepack_core.comfyui.demo import TEXT, TRANSFORMER, VAE, VISION, load_demo, weights_file
from framepack_core.comfyui.encoding import encode_images
from framepack_core.comfyui.sampling.colour import ColourAnchor
from framepack_core.comfyui.sampling.denoise import Callback, GuiderDenoiser, with_conditions
from framepack_core.comfyui.sampling.request import Given, make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.comfyui.sampling.timed import Told, with_time
from framepack_core.demo.scenes import picture
from framepack_core.demo.world import FPS, Scene
from framepack_core.frames import Length, pixel_frames
from framepack_core.media.video import pixels
from framepack_core.packing import Context
from framepack_core.plan import Section
from framepack_core.prompts import Span
from framepack_core.sections import generate

GUIDANCE = 10.0
SAMPLER = "unipc_bh1"


@dataclass(frozen=True)
class Sampled:
    """Latents `B 16 T H W` of videos made together, and the seconds that each section took."""

    latents: Tensor
    seconds: tuple[float, ...]


class Studio:
    """The demo's four models, loaded once."""

    def __init__(self) -> None:
        self.model, self.clip, self.vae, self.vision = load_demo()

    def shoot(self, videos: Sequence[Video]) -> list[np.ndarray]:
        """The frames of each, uint8 `F 128 128 3`. All have the same `batch`."""
        source = videos[0].source
        if source == "model":
            latents = self.sample(videos).latents
            return [self.decode(latents[number : number + 1]) for number in range(len(videos))]
        frames = pixel_frames(1 + videos[0].generated)
        rendered = [video.told.render(frames) for video in videos]
        return rendered if source == "world" else [self.through_vae(clip) for clip in rendered]

    def sample(
        self,
        videos: Sequence[Video],
        each: Callable[[], None] = lambda: None,
        watch: Callable[[Section], Callback | None] = lambda section: None,
    ) -> Sampled:
        """Sample videos with the same `batch` together. Each has the noise that its own seed would give it alone; `each` is
        called after every section, and what `watch` returns for a section after each of its steps."""
        plan, first = videos[0].plan, videos[0]
        timeline = Given({"samples": torch.cat([self.start(video.told) for video in videos])}).timeline(plan)
        sections = plan.bind(timeline)
        guider = self.guider(videos)
        denoise = GuiderDenoiser(
            guider,
            sampler_named(SAMPLER),
            section_sigmas(sections, timeline, first.steps, first.shift),
            0,
            watch,
            conditions=Told.of(guider.original_conds, sections, Length(1 + first.generated), FPS).conditions,
        )
        generators = [torch.Generator("cpu").manual_seed(video.seed) for video in videos]

        def denoise_own(noise: Tensor, context: Context) -> Tensor:
            own = [torch.randn((1, *noise.shape[1:]), generator=generator) for generator in generators]
            return denoise(torch.cat(own), context)

        anchored = ColourAnchor(denoise_own, timeline, first.colour_anchor) if first.colour_anchor else denoise_own
        seconds, begun = [], time.perf_counter()
        for _ in generate(sections, timeline, anchored, seed=0):
            seconds.append(time.perf_counter() - begun)
            each()
            begun = time.perf_counter()
        return Sampled(timeline.latents, tuple(seconds))

    def guider(self, videos: Sequence[Video]):
        """Conditions whose rows are the videos' prompts and pictures."""
        conditioning = self.conditioning([video.told for video in videos])
        if videos[0].then:
            middle = videos[0].middle / FPS
            later = self.conditioning([video.told_then for video in videos])
            conditioning = [*with_time(conditioning, Span(0, middle)), *with_time(later, Span(middle))]
        guider = make_guider(self.model, conditioning, None, 1.0, GUIDANCE)
        seen = [self.vision.encode_image(picture(video.told), crop=False)["last_hidden_state"] for video in videos]
        return with_conditions(guider, clip_vision_output={"last_hidden_state": torch.cat(seen)})

    def conditioning(self, scenes: Sequence[Scene]) -> list:
        encoded = [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(scene.caption))[0] for scene in scenes]
        text, pooled = (
            torch.cat(rows) for rows in zip(*((text, extra["pooled_output"]) for text, extra in encoded), strict=True)
        )
        return [[text, {"pooled_output": pooled}]]

    def start(self, scene: Scene) -> Tensor:
        return encode_images(self.vae, picture(scene))

    def decode(self, latents: Tensor) -> np.ndarray:
        """Frames uint8 `F H W 3` of one video's latents."""
        return np.stack(list(pixels(decode_video(self.vae, latents))))

    def through_vae(self, frames: np.ndarray) -> np.ndarray:
        return self.decode(self.vae.encode(torch.from_numpy(frames) / 255))


def fingerprint() -> str:
    """A hash of the demo's weights, since results of other weights are other results."""
    digest = hashlib.sha256()
    for name in (TRANSFORMER, VAE, TEXT, VISION):
        digest.update(weights_file(name).read_bytes())
    return digest.hexdigest()[:16]
