"""What a sampler node asks for, and how this is made from the node's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import comfy.clip_vision
import comfy.samplers
import comfy.sd
from torch import Tensor

from ...family import Family, Wish
from ...filling import Section, guides_shown
from ...frames import Length, runs
from ...made import Made, Shown
from ...orders import orders_with_end
from ...placing import Arrangement, Frames, Placed, require_end
from ...plan import Plan
from ...timeline import Timeline
from .. import private
from ..families import family_of
from ..latent import STILL
from . import checks

private.require_for(private.SAMPLERS)

OnCancel = Literal["discard", "return finished part"]
ON_CANCEL: tuple[OnCancel, ...] = get_args(OnCancel)


@dataclass(frozen=True)
class Request:
    """One run of a sampler node. Fields that are inputs of the nodes have the inputs' names.

    `sections` are those of `plan` that fill `timeline`, in sampling order, and `sigmas` holds the schedule of each. `given`
    are the latent frames that the user gave, even if others stay as they are, too. `finished` says how the video was made of
    which sections are made again.
    `embeddings` has those of the sections that are nearer to another image than the start's, by their number, and `initial`
    `B 16 T H W` is what is denoised if that is not pure noise. Finished sections are kept on disk under `origin` (see
    `identity.origin`) and restored from there; None does neither. `on_cancel` says whether a cancel raises or ends the video
    with the sections finished so far. `notes` are lines for the user, and `what` is what warnings call it.
    """

    guider: comfy.samplers.CFGGuider
    sampler: comfy.samplers.Sampler
    plan: Plan
    timeline: Timeline
    sections: tuple[Section, ...]
    sigmas: list[Tensor]
    seed: int
    clip_vision_output: comfy.clip_vision.Output | None = None
    embeddings: Mapping[int, comfy.clip_vision.Output] = field(default_factory=dict)
    initial: Tensor | None = None
    colour_anchor: float = 0.0
    preview_vae: comfy.sd.VAE | None = None
    origin: str | None = None
    on_cancel: OnCancel = "discard"
    notes: tuple[str, ...] = ()
    given: tuple[int, ...] = ()
    finished: Made | None = None
    what: str = "the plan"

    @property
    def before(self) -> Placed | None:
        """What the video begins after, where that is no part of it. Once a run has begun, it has noise."""
        hidden = self.length.hidden
        if not hidden:
            return None
        return Placed(self.timeline.latents[:, :, :hidden].clone(), self.timeline.guides[0].latent, "start", apart=True)

    @property
    def length(self) -> Length:
        return self.plan.length(self.timeline.frames, len(self.given))

    @property
    def made(self) -> Made:
        """How the video is made, for nodes that go on from it."""
        shown = () if self.plan.apart else self._shown()
        made = self.finished or Made(self.plan, self.given, self.timeline.frames)
        return made.again(shown, self._end())

    def _end(self) -> Tensor | None:
        """What a section sees at the end in the place of the video's own last frame, or beyond it."""
        timeline = self.timeline
        seen = {frame for section in self.sections for frame in section.sees}
        beside = {timeline.frames: timeline.end, **timeline.shown}
        return next((end for frame, end in beside.items() if frame in seen and end is not None), None)

    def _shown(self) -> Iterator[Shown]:
        """What each section sees besides the video."""
        guides, frames = self.timeline.guides, self.timeline.frames
        for section in self.sections:
            guide = next((guides[number].latent[:1] for number in guides_shown([section], frames)), None)
            embedding = self.embeddings.get(section.number, self.clip_vision_output)
            for start, stop in runs(section.target):
                yield Shown(start, stop, guide, embedding)


def make_guider(model, positive: list, negative: list | None, cfg: float, guidance: float) -> comfy.samplers.CFGGuider:
    """ComfyUI's guider with the distilled guidance in every condition, if the model takes one.

    At cfg 1 the model is called for the positive only.
    """
    family = family_of(model).family
    if negative is None and cfg != 1.0:
        raise ValueError(f"cfg is {cfg:g} but negative is not connected; connect a negative prompt or set cfg to 1")
    guider = private.CFGGuider(model)
    conds = {"positive": positive} if negative is None else {"positive": positive, "negative": negative}
    values = {} if family.guidance is None else {"guidance": guidance}
    guider.inner_set_conds({name: [_with(entry, **values) for entry in cond] for name, cond in conds.items()})
    guider.set_cfg(cfg)
    return guider


def overruled(model, positive: list, negative: list | None, cfg: float, guidance: float, sampler: str) -> tuple[str, ...]:
    """Lines that name what a sampler node's own inputs take the place of, or leave without effect."""
    found, family = [], family_of(model).family
    for given in dict.fromkeys(cond["guidance"] for _, cond in positive if "guidance" in cond):
        if family.guidance is None:
            found.append(f"guidance {given:g} of the conditioning is without effect on {family.name}")
        elif given != guidance:
            found.append(f"guidance {given:g} of the conditioning is without effect: this node's guidance is {guidance:g}")
    if negative is not None and cfg == 1.0 and not may_use_negative(model, sampler):
        found.append("negative is without effect at cfg 1")
    if "model_sampling" in model.object_patches:
        found.append("the model's shift (ModelSamplingSD3 and the like) is without effect: set this node's shift")
    return tuple(found)


def may_use_negative(model, sampler: str) -> bool:
    """Whether something but cfg may ask for the negative prompt: patches, whatever they do, and some samplers."""
    patches = [value for key, value in model.model_options.items() if key != "transformer_options"]
    return "cfg_pp" in sampler or any([*patches, model.wrappers])


@dataclass(frozen=True)
class Given:
    """What a sampler node is given of the video; the fields are the node's inputs.

    Inverted shows `end_latent` to the first section only, as the official program does; endpoints puts it at the end.
    """

    start_latent: dict | None = None
    end_latent: dict | None = None
    frames: Frames = field(default_factory=Frames)
    latent_image: dict | None = None
    clip_vision_output: comfy.clip_vision.Output | None = None
    end_strength: float = 1.0

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Given:
        """From a node's inputs, out of which it takes its own."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: value for name in names if (value := options.pop(name, None)) is not None})

    @property
    def holds_video(self) -> bool:
        """Whether latent_image is more than a size: empty latents are zeros, and a single frame is no video."""
        if self.latent_image is None:
            return False
        latents = checks.video_latent(self.latent_image, "latent_image")
        return latents.shape[2] > 1 and bool(latents.any())

    def fit(self, plan: Plan, family: Family, from_noise: bool = True) -> Plan:
        """The plan as the family makes it. Raises ValueError for anything that the family cannot do."""
        family.require([*self._wishes(), *([] if from_noise else ["denoise"])])
        other = any(placed.apart != family.apart for placed in self.frames.placed) and not self.frames.finished
        if other or (STILL in (self.start_latent or {}) and not family.apart):
            raise ValueError(f"what the video begins with is encoded with another model's VAE; encode it with {family.vae}")
        return family.fit(plan)

    def _wishes(self) -> Iterator[Wish]:
        if self.end_latent is not None:
            yield "end_latent"
        if any(not placed.is_fixed for placed in self.frames.placed):
            yield "guides"
        if not self.frames.finished and any(placed.at != "start" for placed in self.frames.placed):
            yield "keyframes"

    def arrangement(self, plan: Plan) -> Arrangement:
        """Where everything is in the plan's video. Raises ValueError for what does not fit together or has no place."""
        frames = self.frames if self.frames.placed or self.frames.finished else Frames(fps=plan.fps)
        self._require_place(plan)
        if self.start_latent is not None:
            start = checks.frame_latent(self.start_latent, "start_latent")
            written = self.start_latent.get(STILL, start) if plan.apart else start
            frames = frames.with_placed(Placed(written, start, "start", embedding=self.clip_vision_output))
        if self.end_latent is not None:
            end = checks.frame_latent(self.end_latent, "end_latent")
            require_end(plan, "end_latent is connected", "disconnect it")
            if plan.order.end == "last":
                frames = frames.with_placed(Placed(end, end, "end"))
            elif plan.order.end is None:
                raise ValueError(f"end_latent is connected, but the {plan.order} order never looks ahead; set the plan's order "
                                 f"to {orders_with_end('beyond', 'last')}, or disconnect it")  # fmt: skip
        return Arrangement.of(plan, frames)

    def _require_place(self, plan: Plan) -> None:
        """Raises ValueError for an image that would become a frame of a finished video."""
        ends = {"start_latent": self.start_latent, **({"end_latent": self.end_latent} if plan.order.end == "last" else {})}
        for name, latent in ends.items():
            if self.frames.finished and latent is not None:
                raise ValueError(
                    f"{name} is connected, but frames are the rest of a finished video (from FramePack_Redo), which has it "
                    f"already; disconnect {name}"
                )

    def timeline(self, plan: Plan) -> Timeline:
        """The video before it is sampled. Raises ValueError if nothing gives its size, or if sizes differ."""
        arrangement, given = self.arrangement(plan), self._latents()
        if not given:
            raise ValueError(
                "nothing gives the video's size; connect start_latent, frames, or an empty latent (EmptyHunyuanLatentVideo) as "
                "latent_image"
            )
        batch = checks.same_batch(given)
        timeline = arrangement.timeline(next(iter(given.values())).shape, batch)
        end = self._end()
        if end is not None and plan.order.end == "beyond":
            timeline.end = end.expand(batch, -1, -1, -1, -1)
        elif end is not None:
            timeline.shown[timeline.frames - 1] = end.expand(batch, -1, -1, -1, -1)
        return timeline

    def _end(self) -> Tensor | None:
        """What is seen at the end, `B 16 1 H W`; where a finished video is made again in part, what was seen there at first."""
        if self.end_latent is not None:
            return checks.frame_latent(self.end_latent, "end_latent") * self.end_strength
        return None if self.frames.made is None else self.frames.made.end

    def known(self, plan: Plan) -> tuple[int, ...]:
        """The latent frames that are given; of a video that is made again in part, those that were given at first."""
        made = self.frames.made
        return tuple(sorted(self.arrangement(plan).known)) if made is None else made.given

    def embeddings(self, plan: Plan, sections: Sequence[Section]) -> dict[int, comfy.clip_vision.Output]:
        """Image embeddings of sections that are nearer to another image than the start's, or that were made with one."""
        arrangement, made = self.arrangement(plan), self.frames.made
        found = {section.number: arrangement.embedding(section) for section in sections}
        if made is not None and self.clip_vision_output is None:
            again = {section.number: made.embedding(section.target) for section in sections}
            found = {number: again[number] if one is None else one for number, one in found.items()}
        return {number: one for number, one in found.items() if one is not None and one is not self.clip_vision_output}

    def initial(self, timeline: Timeline, from_noise: bool) -> Tensor | None:
        """What noise is added to, `B 16 T H W`, or None where sections begin `from_noise`.

        Raises ValueError if it is missing, or if it is of another length than the video.
        """
        if from_noise:
            return None
        if self.latent_image is None:
            raise ValueError(
                "denoise is below 1 but latent_image is not connected; connect the video to denoise, or set denoise to 1"
            )
        latents = checks.video_latent(self.latent_image, "latent_image")
        if latents.shape[2] != timeline.frames:
            raise ValueError(
                f"latent_image holds {latents.shape[2]} latent frames, but the plan's video has {timeline.frames}; connect the "
                "latent that was sampled with this plan, or begin from noise (denoise 1)"
            )
        return latents.expand(len(timeline.latents), -1, -1, -1, -1)

    def notes(self, plan: Plan) -> list[str]:
        """Lines for the user about what is given."""
        found = self.arrangement(plan).notes()
        if self.end_strength < 1 and self.end_latent is None:
            found.append(
                f"end_strength {self.end_strength:g} is without effect: it is for end_latent, which is not connected, not for "
                "what frames have at the end"
            )
        if plan.apart and STILL not in (self.start_latent or {STILL: None}):
            found.append(
                "the video may begin with a jump: start_latent is the image alone; encode it with FramePack_EncodeImage"
            )
        return found

    def _latents(self) -> dict[str, Tensor]:
        """Everything that has the video's size, by the input's name."""
        given = {}
        for name in ("start_latent", "end_latent"):
            if (latent := getattr(self, name)) is not None:
                given[name] = checks.frame_latent(latent, name)
        if self.frames.placed:
            given["frames"] = self.frames.placed[0].picture
        if self.latent_image is not None:
            given["latent_image"] = checks.video_latent(self.latent_image, "latent_image")
        return given


def _with(entry: list, **values) -> list:
    return [entry[0], {**entry[1], **values}]
