from collections import Counter
from typing import Any

from comfy_api.latest import io

from ..framepack_core.comfyui import private
from ..framepack_core.comfyui.families import AUTO, family_of
from ..framepack_core.comfyui.latent import BEFORE, LENGTH, MADE
from ..framepack_core.comfyui.log import log_once
from ..framepack_core.comfyui.sampling.checks import begins_in_noise
from ..framepack_core.comfyui.sampling.identity import by_content, origin
from ..framepack_core.comfyui.sampling.loras import unused
from ..framepack_core.comfyui.sampling.request import ON_CANCEL, Given, Request, make_guider, overruled
from ..framepack_core.comfyui.sampling.sample import sample
from ..framepack_core.comfyui.sampling.samplers import OWN, UNIPC, without_repeats
from ..framepack_core.comfyui.sampling.timed import with_parts
from ..framepack_core.family import FRAMEPACK
from ..framepack_core.oneframe import HISTORIES, LAST, MAX_INDEX, History, OneFrame
from ..framepack_core.placing import Frames
from ..framepack_core.plan import Plan
from .schema import FramesType, PlanType, named_errors, progress_text

MAX_SEED = 0xFFFFFFFFFFFFFFFF

# How often each node returned only part of a video: ComfyUI must not take that from its cache when the graph is queued again.
_cut_short: Counter[str] = Counter()


def _images() -> list[io.Input]:
    return [
        io.Latent.Input(
            "start_latent",
            optional=True,
            tooltip="The video's first frame, from FramePack Encode Image or VAE Encode. Without it and without frames, the "
            "video is made from the prompt alone.",
        ),
        io.Latent.Input(
            "end_latent",
            optional=True,
            tooltip="The image to end on, encoded at the same size. inverted steers towards it, as the official program does; "
            "endpoints makes it the last frame; forward cannot use it.",
        ),
        io.ClipVisionOutput.Input(
            "clip_vision_output",
            optional=True,
            tooltip="What the start image shows, from FramePack Encode Image or CLIP Vision Encode (crop none).",
        ),
    ]


def _seed(tooltip: str = "Sets the noise of all sections. The same seed and inputs give the same video.") -> io.Input:
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip)


def _steps(tooltip: str) -> io.Input:
    return io.Int.Input(
        "steps", default=FRAMEPACK.steps, min=0, max=1000, tooltip=f"{tooltip} 0: as many as the model was made for."
    )


def _strengths() -> list[io.Input]:
    return [
        io.Float.Input(
            "cfg",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="True classifier-free guidance. 1 is what the checkpoints were distilled for; other values double "
            "the time and need a negative prompt.",
        ),
        io.Float.Input(
            "guidance",
            default=FRAMEPACK.guidance,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Distilled guidance: how closely the result follows the prompt, at no cost in time. 10 is the "
            "official value.",
        ),
        io.Float.Input(
            "shift",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="Higher spends more of the steps at high noise, where composition and motion are decided. 0 picks "
            "the right value for the resolution.",
        ),
    ]


def _preview_vae() -> io.Input:
    return io.Vae.Input(
        "preview_vae",
        optional=True,
        tooltip="Plays the video so far in the node while the rest is made; the result stays the same. A tiny VAE (TAEHV) "
        "costs little; the full one makes room for itself on the GPU after every section.",
    )


def _stopping() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "resume",
            default=True,
            optional=True,
            tooltip="Keeps every finished section on disk. After a cancel or a crash, the same graph continues from there and "
            "gives the same video; in the forward order, a longer plan continues from a shorter one.",
        ),
        io.Combo.Input(
            "on_cancel",
            options=list(ON_CANCEL),
            default=ON_CANCEL[0],
            optional=True,
            tooltip="What cancelling does. discard ends the run. return finished part only ends sampling: the sections "
            "finished so far are still decoded and saved.",
        ),
    ]


def _given(less: str) -> list[io.Input]:
    """`less` says in words when sections do not begin from noise."""
    return [
        FramesType.Input(
            "frames",
            optional=True,
            tooltip="Stills and clips that are part of the video or guide it, from FramePack Place; or what stays of a "
            "finished video, from FramePack Redo.",
        ),
        io.Latent.Input(
            "latent_image",
            optional=True,
            tooltip=f"Gives the size where no image does: an empty latent (EmptyHunyuanLatentVideo). With {less}, "
            "the video that is changed: as long as the plan says.",
        ),
        io.Float.Input(
            "end_strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="How strongly sections see end_latent. Below 1 they see it paler, and follow it less; in the endpoints "
            "order the last frame itself stays as it is. It does nothing to what frames have at the end.",
            advanced=True,
        ),
        io.Float.Input(
            "colour_anchor",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Pulls the colours of every section towards those of the first frame, against drift in a long video; "
            "0 is off. Without a start image, the nearest frame that exists takes its place until the first one is made. It "
            "also takes back changes of light that the prompt asks for.",
            advanced=True,
        ),
    ]


def _denoise() -> io.Input:
    return io.Float.Input(
        "denoise",
        default=1.0,
        min=0.01,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="How much of latent_image is made anew. 1 begins from noise; 0.3 to 0.6 keeps its motion and changes its look.",
    )


def _video() -> io.Output:
    return io.Latent.Output(display_name="latent", tooltip="The whole video, start frame included, for FramePack Decode.")


def _origin(node: type[io.ComfyNode], guider, resume: bool) -> str | None:
    """The name under which finished sections are kept, or None if they are not."""
    if not resume:
        return None
    try:
        return origin(node.hidden.dynprompt, node.hidden.unique_id, not by_content(guider))
    except private.Missing as missing:
        log_once(f"finished sections are not kept: {missing}")
        return None


def _unused_loras(node: type[io.ComfyNode], model) -> tuple[str, ...]:
    """A line for each LoRA that changes nothing, or less than it could."""
    try:
        lines = () if node.hidden.dynprompt is None else unused(node.hidden.dynprompt, node.hidden.unique_id, model)
    except private.Missing:
        return ()
    for line in lines:
        log_once(line)
    return tuple(lines)


def _sampled(node: type[io.ComfyNode], request: Request) -> io.NodeOutput:
    before = request.before
    video = sample(request, progress_text(node))
    latent = {"samples": video.latents, MADE: video.made, LENGTH: video.length, **({BEFORE: before} if before else {})}
    if not video.whole:
        _cut_short[node.hidden.unique_id] += 1
    return io.NodeOutput(latent)


class SamplerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        start_latent, *others = _images()
        return io.Schema(
            node_id="FramePack_Sampler",
            display_name="FramePack Sampler",
            category="FramePack/sampling",
            description="Makes the video section by section, with ComfyUI's own guider and sampler for each.",
            search_aliases=["framepack image to video", "framepack ksampler", "long video sampler", "next frame prediction"],
            inputs=[
                io.Model.Input("model", tooltip="A FramePack model, with any LoRAs or patches applied to it."),
                io.Conditioning.Input("positive", tooltip="What should happen. Describe the motion."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What should not happen. Used, and required, when cfg is not 1."
                ),
                PlanType.Input("plan", tooltip="Length, order and layout, from FramePack Plan."),
                start_latent,
                *others,
                _seed(),
                _steps("Steps per section. Fewer is faster; hands and faces suffer first."),
                *_strengths(),
                io.Combo.Input(
                    "sampler",
                    options=[AUTO, *OWN, *private.SAMPLER_NAMES],
                    default=AUTO,
                    tooltip="auto is the model's own sampler, as in the official programs: unipc_bh1 for FramePack, unipc or "
                    "dmd for Helios. All of ComfyUI's samplers work.",
                ),
                _preview_vae(),
                *_stopping(),
                *_given("a denoise below 1"),
                _denoise(),
            ],
            outputs=[_video()],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    @named_errors
    def execute(
        cls,
        model,
        positive,
        plan: Plan,
        seed: int,
        steps: int,
        cfg: float,
        guidance: float,
        shift: float,
        sampler: str,
        negative=None,
        denoise: float = 1.0,
        resume: bool = True,
        **options: Any,
    ) -> io.NodeOutput:
        guider, given = make_guider(model, positive, negative, cfg, guidance), Given.taken(options)
        family = family_of(model)
        from_noise = denoise >= 1.0
        plan = given.fit(plan, family.family, from_noise)
        timeline = given.timeline(plan)
        plan = with_parts(plan, guider.original_conds, timeline.frames, given.known(plan))
        sections = plan.bind(timeline)
        request = Request(
            guider=guider,
            sampler=family.sampler(sampler),
            plan=plan,
            timeline=timeline,
            sections=sections,
            sigmas=family.sigmas(sections, timeline, steps, shift, denoise),
            seed=seed,
            clip_vision_output=given.clip_vision_output,
            embeddings=given.embeddings(plan, sections),
            given=given.known(plan),
            finished=given.frames.made,
            initial=given.initial(timeline, from_noise),
            origin=_origin(cls, guider, resume),
            notes=(
                *given.notes(plan),
                *overruled(model, positive, negative, cfg, guidance, sampler),
                *_unused_loras(cls, model),
            ),
            **options,
        )
        return _sampled(cls, request)

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> int:
        return _cut_short[cls.hidden.unique_id]


class SamplerCustomNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_SamplerCustom",
            display_name="FramePack Sampler (Custom)",
            category="FramePack/sampling",
            description="FramePack with any of ComfyUI's guiders, samplers and sigmas.",
            search_aliases=["framepack sampler custom advanced", "framepack guider"],
            inputs=[
                io.Guider.Input(
                    "guider",
                    tooltip="Any guider on a FramePack model. The distilled guidance comes from its conditioning "
                    "(FluxGuidance), or is 10 if there is none.",
                ),
                io.Sampler.Input("sampler", tooltip="Any sampler. The official program's is FramePack UniPC."),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="Any schedule from 1 to 0. The official program's is FramePack Scheduler. One that begins below 1 "
                    "(Split Sigmas Denoise) changes latent_image.",
                ),
                PlanType.Input("plan", tooltip="Length, order and layout, from FramePack Plan."),
                _seed(),
                *_images(),
                _preview_vae(),
                *_stopping(),
                *_given("sigmas that begin below 1"),
            ],
            outputs=[_video()],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    @named_errors
    def execute(
        cls,
        guider,
        sampler,
        sigmas,
        plan: Plan,
        seed: int,
        resume: bool = True,
        **options: Any,
    ) -> io.NodeOutput:
        given = Given.taken(options)
        from_noise = begins_in_noise(sigmas, guider.model_patcher) or not given.holds_video
        plan = given.fit(plan, family_of(guider.model_patcher).family, from_noise)
        timeline = given.timeline(plan)
        plan = with_parts(plan, guider.original_conds, timeline.frames, given.known(plan))
        sections = plan.bind(timeline)
        request = Request(
            guider=guider,
            sampler=sampler,
            plan=plan,
            timeline=timeline,
            sections=sections,
            sigmas=[without_repeats(sigmas) for _ in sections],
            seed=seed,
            clip_vision_output=given.clip_vision_output,
            embeddings=given.embeddings(plan, sections),
            given=given.known(plan),
            finished=given.frames.made,
            initial=given.initial(timeline, from_noise),
            origin=_origin(cls, guider, resume),
            notes=(*given.notes(plan), *_unused_loras(cls, guider.model_patcher)),
            **options,
        )
        return _sampled(cls, request)

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> int:
        return _cut_short[cls.hidden.unique_id]


class OneFrameNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_OneFrame",
            display_name="FramePack One Frame",
            category="FramePack/sampling",
            description="Makes one picture instead of a video: what a still becomes some time later, as the prompt says. A "
            "second still can show what it should take over, such as clothes.",
            search_aliases=[
                "framepack one frame inference",
                "framepack single frame",
                "framepack 1f",
                "framepack image edit",
                "kisekaeichi",
            ],
            inputs=[
                io.Model.Input("model", tooltip="FramePackI2V, usually with a LoRA made for one frame."),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What it should not show. Used, and required, when cfg is not 1."
                ),
                FramesType.Input(
                    "frames",
                    optional=True,
                    tooltip="The stills that the picture is made from, from FramePack Place: at the start what changes, at the "
                    "end what else it should be like. They give the size; their masks say what of them is seen.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="What the picture should contain, instead of what FramePack Place says of the earliest still.",
                ),
                io.Int.Input(
                    "target_index",
                    default=LAST,
                    min=0,
                    max=MAX_INDEX,
                    tooltip="The picture's time index, in steps of 4 frames. The further from the still's, the more changes; "
                    "beyond about 40 it falls apart.",
                ),
                io.Combo.Input(
                    "history",
                    options=list(HISTORIES),
                    default=HISTORIES[0],
                    tooltip="Which empty frames the model sees after the picture, as at a video's end. Fewer are faster and "
                    "less stable; with a still at the end, or a LoRA that says no_post, none.",
                ),
                _seed("Sets the noise. The same seed and inputs give the same picture."),
                _steps("Fewer is faster; hands and faces suffer first."),
                *_strengths(),
                io.Combo.Input(
                    "sampler",
                    options=[AUTO, *UNIPC, *private.SAMPLER_NAMES],
                    default=AUTO,
                    tooltip="auto is the model's own sampler: unipc_bh1, as in the official program. All of ComfyUI's samplers "
                    "work.",
                ),
                io.String.Input(
                    "control_index",
                    default="",
                    optional=True,
                    tooltip="The time indices of the stills, as pages of LoRAs give them: 0;10, in the order of the chain. "
                    "Empty: 0 at the start, 10 at the end, or where their time is.",
                    advanced=True,
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The picture, for FramePack Decode or VAE Decode.")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    @named_errors
    def execute(
        cls,
        model,
        positive,
        target_index: int,
        history: History,
        seed: int,
        steps: int,
        cfg: float,
        guidance: float,
        shift: float,
        sampler: str,
        negative=None,
        frames: Frames | None = None,
        clip_vision_output=None,
        control_index: str = "",
    ) -> io.NodeOutput:
        family = family_of(model)
        family.family.require(["one frame"])
        one = OneFrame.of(frames or Frames(), target_index, history, control_index)
        timeline, sections = one.timeline(), (one.section(),)
        request = Request(
            guider=make_guider(model, positive, negative, cfg, guidance),
            sampler=family.sampler(sampler),
            plan=one.plan,
            timeline=timeline,
            sections=sections,
            sigmas=family.sigmas(sections, timeline, steps, shift),
            seed=seed,
            clip_vision_output=clip_vision_output or one.embedding(),
            notes=(
                one.spelled(),
                *overruled(model, positive, negative, cfg, guidance, sampler),
                *_unused_loras(cls, model),
            ),
            what="FramePack One Frame",
        )
        return io.NodeOutput({"samples": sample(request, progress_text(cls)).latents})
