"""From a request to the latents of a whole video."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from comfy.model_management import InterruptProcessingException
from torch import Tensor

from ...filling import with_any_guide
from ...frames import Length, runs
from ...made import Made
from ...sections import Denoise, fill
from ...store.kept import section_keys
from ...timeline import Timeline
from .. import private
from ..families import family_of
from ..log import log_once
from ..preview.progress import Progress, Say
from . import checks
from .cache import measuring_of
from .colour import ColourAnchor
from .denoise import GuiderDenoiser, with_conditions
from .identity import identity, section_parts
from .kept import KeptSections
from .patches import unused_image_embedding, without_effect
from .request import Request
from .samplers import step_count
from .timed import Told


@dataclass(frozen=True)
class Video:
    """Latents `B 16 T H W`, unscaled: the start latent and all planned frames, or the finished part of a cancelled run.

    `made` says how it was made, and `length` what is shown of it.
    """

    latents: Tensor
    made: Made
    length: Length

    @classmethod
    @classmethod
    def of(cls, latents: Tensor, made: Made, length: Length) -> Video:
        """Without frames that are not shown."""
        shown = latents[:, :, length.hidden :].contiguous()
        made = made.cut(length.hidden, latents.shape[2])
        return cls(shown, made, replace(length, latents=shown.shape[2], hidden=0))

    @property
    def whole(self) -> bool:
        return self.made.begins and self.made.ends


def sample(request: Request, say: Say) -> Video:
    """Fill the request's timeline, section by section; `say` shows a line of text.

    Raises ValueError for anything that does not fit together, before the model is loaded.
    """
    checks.require_fitting(request)
    patcher, timeline = request.guider.model_patcher, request.timeline
    own = family_of(patcher)
    draw = own.begin(patcher.model, timeline, request.seed)
    guider = request.guider
    if request.clip_vision_output is not None:
        guider = with_conditions(guider, clip_vision_output=request.clip_vision_output)
    timeline.blank = blank(patcher, timeline)
    told = Told.of(guider.original_conds, request.sections, request.length, request.plan.fps)
    checks.require_regions(request, told)
    warned = checks.warnings(request.plan, patcher, request.what)
    if request.initial is None:
        warned += checks.sigma_warnings(request.sigmas)
    warned += own.family.advice(request.plan.fps, getattr(guider, "cfg", own.family.cfg))
    if measuring := measuring_of(patcher):
        measuring.begin()
        request = replace(request, origin=None)  # sections of an earlier run would not be measured
    notes = Notes(say, [*request.notes, *told.notes, *warned, *ignored(request)])
    kept = kept_sections(request, told, notes)
    before, steps = frozenset(timeline.known), [step_count(sigmas) for sigmas in request.sigmas]
    fps, vae = request.plan.fps, request.preview_vae
    with Progress(patcher, request.sections, steps, timeline, request.length, fps, notes.say, vae, told.words) as progress:
        denoise: Denoise = GuiderDenoiser(
            guider,
            request.sampler,
            request.sigmas,
            request.seed,
            progress.of,
            request.embeddings,
            request.initial,
            told.conditions,
        )
        if request.colour_anchor:
            denoise = ColourAnchor(denoise, timeline, request.colour_anchor, request.length.hidden)
        finished = kept.restored() if kept else ()
        try:
            for section, latents in fill(request.sections, timeline, draw, denoise, finished):
                if kept:
                    kept.add(section)
                progress.finish(section, latents)
                del latents  # the timeline has them
        except InterruptProcessingException:
            if request.on_cancel == "discard" or timeline.known == before:
                raise
            if len(timeline.known) < timeline.frames:
                return finished_part(timeline, before, request.made, request.length)
    return Video.of(timeline.latents, request.made, request.length)


def blank(patcher, timeline: Timeline) -> Tensor:
    """What is zero for the model, `1 C 1 1 1`, unscaled: it was trained with this where there is no frame yet."""
    zero = timeline.latents.new_zeros(1, timeline.latents.shape[1], 1, 1, 1)
    return patcher.model.latent_format.process_out(zero)


def ignored(request: Request) -> list[str]:
    """What the user has connected that has no effect."""
    patcher = request.guider.model_patcher
    lines = without_effect(patcher, request.guider.original_conds)
    lines += unused_image_embedding(request.clip_vision_output, patcher)
    for line in lines:
        log_once(line)
    return lines


def kept_sections(request: Request, told: Told, notes: Notes) -> KeptSections | None:
    """The sections that an earlier run has left, and the place for this run's."""
    if request.origin is None:
        return None
    try:
        named = identity(request)
    except private.Missing as missing:
        notes.add(f"finished sections are not kept: {missing}")
        return None
    sections, timeline, own = request.sections, request.timeline, section_parts(request, told)
    of_any_length = [with_any_guide(section, timeline.frames) for section in sections]
    return KeptSections(
        named,
        keys=lambda name: section_keys(name, of_any_length, request.sigmas, own),
        latents=lambda number: timeline.read(sections[number].target),
        note=notes.add,
    )


class Notes:
    """Lines that stay above the progress line."""

    def __init__(self, say: Say, lines: Sequence[str]) -> None:
        self._say = say
        self.lines = list(lines)

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._say("\n".join(self.lines))

    def say(self, line: str) -> None:
        self._say("\n".join([*self.lines, line]))


def finished_part(timeline: Timeline, before: Collection[int], made: Made, length: Length) -> Video:
    """Of the stretches of known frames the one with the most that were not known `before`: after a start image, the video's
    beginning in the forward order, its end in the inverted one.

    At first the endpoints order has two with equally many; the longer one is taken, or else the earlier one.
    """
    new = timeline.known - {*before}
    start, stop = max(runs(sorted(timeline.known)), key=lambda run: (len(new.intersection(range(*run))), run[1] - run[0]))
    part = made.cut(start, stop)
    sections = (part.frames - len(part.given)) // made.plan.window
    plan = replace(made.plan, sections=sections, seconds=None, exact=None, loop=0)
    part = replace(part, plan=plan, begins=start == 0, ends=stop == timeline.frames)
    shown = Length(part.frames, apart=length.apart, hidden=length.hidden)
    return Video.of(timeline.latents[:, :, start:stop], part, shown)
