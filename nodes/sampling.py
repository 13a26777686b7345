from collections import Counter
from functools import partial

import comfy.samplers
from comfy_api.latest import io

from ..framepack_core.comfyui.identity import origin
from ..framepack_core.comfyui.sampling import (
    ON_CANCEL,
    UNIPC,
    OnCancel,
    make_guider,
    sample_video,
    sampler_named,
    schedule,
    unipc,
    window_sigmas,
)
from ..framepack_core.plan import MAX_WINDOW, Plan
from ..framepack_core.solver import VARIANTS
from .schema import PlanType, named_errors, progress_text

MAX_SEED = 0xFFFFFFFFFFFFFFFF

# How often each node's result was a part: ComfyUI must not take that from its cache when the graph is queued again.
_cut_short: Counter[str] = Counter()


def _frames() -> list[io.Input]:
    return [
        io.Latent.Input("start_latent", tooltip="The video's first frame, from FramePack Encode Image or VAE Encode."),
        io.Latent.Input(
            "end_latent",
            optional=True,
            tooltip="An image to end on, of the same size. inverted steers towards it as the official program does; "
            "endpoints makes it the last frame; forward has no place for it.",
        ),
        io.ClipVisionOutput.Input(
            "clip_vision_output",
            optional=True,
            tooltip="What the start image shows, from FramePack Encode Image or CLIP Vision Encode (crop none).",
        ),
    ]


def _seed() -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=True,
        tooltip="Draws the noise of all sections. The same seed and inputs give the same video.",
    )


def _preview_vae() -> io.Input:
    return io.Vae.Input(
        "preview_vae",
        optional=True,
        tooltip="Decodes each finished section, so that the video so far plays in the node while the rest is made. A tiny VAE "
        "(TAEHV) costs little; the full one makes room for itself on the GPU after every section.",
    )


def _stopping() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "resume",
            default=True,
            optional=True,
            tooltip="Keeps every finished section on disk. After a cancel or a crash, the same graph goes on from there and "
            "ends in the same video; a longer plan in the forward order goes on from a shorter one.",
        ),
        io.Combo.Input(
            "on_cancel",
            options=list(ON_CANCEL),
            default=ON_CANCEL[0],
            optional=True,
            tooltip="What cancel does. discard ends the run. return finished part ends sampling only: the sections that are "
            "done go on to be decoded and saved.",
        ),
    ]


def _video() -> io.Output:
    return io.Latent.Output(display_name="latent", tooltip="The whole video, start frame included, for FramePack Decode.")


class SamplerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        start_latent, *optional = _frames()
        return io.Schema(
            node_id="FramePack_Sampler",
            display_name="FramePack Sampler",
            category="FramePack/sampling",
            description="Makes the video section by section. Every section runs through ComfyUI's guider and sampler.",
            search_aliases=["framepack image to video", "framepack ksampler", "long video sampler", "next frame prediction"],
            inputs=[
                io.Model.Input("model", tooltip="A FramePack model, with whatever LoRA or patch was applied to it."),
                io.Conditioning.Input("positive", tooltip="What should happen. Describe the motion."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What should not. Used, and needed, when cfg is not 1."
                ),
                PlanType.Input("plan", tooltip="Length, order and layout, from FramePack Plan."),
                start_latent,
                *optional,
                _seed(),
                io.Int.Input(
                    "steps",
                    default=25,
                    min=1,
                    max=1000,
                    tooltip="Steps for each section. Fewer is faster; hands and faces suffer first.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Real classifier-free guidance. 1 is what the checkpoints were distilled for; other values double "
                    "the time and need a negative.",
                ),
                io.Float.Input(
                    "guidance",
                    default=10.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Distilled guidance: how strictly the prompt is followed, at no cost. 10 is the official value.",
                ),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How much of the steps is spent at high noise, where layout and motion are decided. 0 takes the "
                    "value that belongs to the resolution.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=[*UNIPC, *comfy.samplers.SAMPLER_NAMES],
                    default="unipc_bh1",
                    tooltip="unipc_bh1 is the official one. All of ComfyUI's samplers work.",
                ),
                _preview_vae(),
                *_stopping(),
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
        start_latent: dict,
        seed: int,
        steps: int,
        cfg: float,
        guidance: float,
        shift: float,
        sampler: str,
        negative=None,
        end_latent: dict | None = None,
        clip_vision_output=None,
        preview_vae=None,
        resume: bool = True,
        on_cancel: OnCancel = "discard",
    ) -> io.NodeOutput:
        video = sample_video(
            make_guider(model, positive, negative, cfg, guidance),
            sampler_named(sampler),
            partial(schedule, steps, shift),
            plan,
            start_latent,
            end_latent,
            clip_vision_output,
            seed,
            progress_text(cls),
            preview_vae,
            origin(cls.hidden.dynprompt, cls.hidden.unique_id) if resume else None,
            on_cancel,
        )
        if not video.whole:
            _cut_short[cls.hidden.unique_id] += 1
        return io.NodeOutput({"samples": video.latents})

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
            description="FramePack with any guider, sampler and sigmas of ComfyUI.",
            search_aliases=["framepack sampler custom advanced", "framepack guider"],
            inputs=[
                io.Guider.Input(
                    "guider",
                    tooltip="Any guider on a FramePack model. The distilled guidance is taken from its conditioning "
                    "(FluxGuidance), 10 if there is none.",
                ),
                io.Sampler.Input("sampler", tooltip="Any sampler; FramePack UniPC is the official one."),
                io.Sigmas.Input("sigmas", tooltip="Any schedule from 1 to 0; FramePack Scheduler is the official one."),
                PlanType.Input("plan", tooltip="Length, order and layout, from FramePack Plan."),
                _seed(),
                *_frames(),
                _preview_vae(),
                *_stopping(),
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
        start_latent: dict,
        end_latent: dict | None = None,
        clip_vision_output=None,
        preview_vae=None,
        resume: bool = True,
        on_cancel: OnCancel = "discard",
    ) -> io.NodeOutput:
        video = sample_video(
            guider,
            sampler,
            lambda section, timeline: sigmas,
            plan,
            start_latent,
            end_latent,
            clip_vision_output,
            seed,
            progress_text(cls),
            preview_vae,
            origin(cls.hidden.dynprompt, cls.hidden.unique_id) if resume else None,
            on_cancel,
        )
        if not video.whole:
            _cut_short[cls.hidden.unique_id] += 1
        return io.NodeOutput({"samples": video.latents})

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> int:
        return _cut_short[cls.hidden.unique_id]


class UniPCNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_UniPC",
            display_name="FramePack UniPC",
            category="FramePack/sampling",
            description="The official program's sampler, UniPC for flow matching, for any ComfyUI sampling node.",
            search_aliases=["unipc flow matching", "unipc_bh1", "unipc_bh2"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default="bh1",
                    tooltip="bh1 is the official one and better at few steps; bh2 differs slightly at strong guidance.",
                )
            ],
            outputs=[io.Sampler.Output(tooltip="For FramePack Sampler (Custom) or SamplerCustomAdvanced.")],
        )

    @classmethod
    @named_errors
    def execute(cls, variant: str) -> io.NodeOutput:
        return io.NodeOutput(unipc(variant))


class SchedulerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_Scheduler",
            display_name="FramePack Scheduler",
            category="FramePack/sampling",
            description="The official program's sigmas, which depend on the size of the video.",
            search_aliases=["framepack sigmas", "flow matching shift", "resolution dependent shift"],
            inputs=[
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Steps for each section."),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="0 takes the value that belongs to the size. Higher spends more steps on layout and motion.",
                ),
                io.Latent.Input("latent", tooltip="Gives the size: the start latent."),
                io.Int.Input("window", default=9, min=1, max=MAX_WINDOW, tooltip="Latent frames made at once, as in the plan."),
            ],
            outputs=[io.Sigmas.Output(tooltip="For FramePack Sampler (Custom).")],
        )

    @classmethod
    @named_errors
    def execute(cls, steps: int, shift: float, latent: dict, window: int) -> io.NodeOutput:
        return io.NodeOutput(window_sigmas(steps, shift, latent["samples"], window))
