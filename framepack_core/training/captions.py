"""Captions that change within a video, written as prompts are: `a cat sits [2s: it jumps]`, in seconds of the video.

told = told_in(caption, video.seconds, cut, fps=30)
told   # {0: "a cat sits", 16: "it jumps"}: words by the clip's latent frame that they count from
"""

from __future__ import annotations

from collections.abc import Mapping

from ..frames import Length, latent_frames, pixel_frames
from ..prompts import Prompt, Span, parse, spell, stretches
from .videos import Cut


def told_in(caption: str, seconds: float, cut: Cut, fps: float) -> dict[int, str]:
    """The words for a clip cut from a video of so many seconds, by the latent frame that they count from, the first from 0 on.

    Raises ValueError for times that cannot be, and for fades, since a section of a clip is told one text.
    """
    prompts = parse(caption)
    words = {prompt.span: prompt.words for prompt in prompts}
    spans = [prompt.span for prompt in prompts if prompt.span]
    if not spans:
        return {0: caption}
    if fading := [span for span in spans if span.fade]:
        raise ValueError(f"{fading[0]} fades, but a clip's caption changes at once; leave out ~{fading[0].fade:g}s")
    clip = Length(latent_frames(cut.frames))
    told: dict[int, str] = {}
    for stretch in stretches(spans, None in words, seconds):
        begin, stop = (round(time * fps) - cut.start for time in (stretch.start, stretch.stop))
        frame = round(clip.place(max(0, begin)))
        if stop > 0 and frame < clip.latents:
            told[frame] = words[stretch.span]
    return told


def spelled(told: Mapping[int, str], fps: float) -> str:
    """The caption that has these words, in seconds of the clip."""
    first, *later = told.items()
    return spell([Prompt(first[1]), *(Prompt(words, Span(round(pixel_frames(frame) / fps, 3))) for frame, words in later)])
