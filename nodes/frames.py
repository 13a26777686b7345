from comfy_api.latest import io

from ..framepack_core.comfyui.latent import BEFORE, length_of, made_of
from ..framepack_core.comfyui.placing import Picture, pictures, place_all
from ..framepack_core.comfyui.sampling.checks import video_latent
from ..framepack_core.frames import MAX_FPS
from ..framepack_core.placing import ATS, USES, At, Frames, Use, chained
from ..framepack_core.plan import MAX_SECONDS, Plan
from ..framepack_core.redo import sections_again
from ..framepack_core.weights.buckets import BASE, STEP
from .schema import FramesType, PlanType, named_errors, progress_text


class PlaceNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_Place",
            display_name="FramePack Place",
            category="FramePack/frames",
            description="Puts a still or a clip at the start, at the end or at a time of the video. Chain several for "
            "keyframes; a clip at the start is continued, one at the end is led up to, and between two the gap is filled.",
            search_aliases=[
                "framepack keyframe",
                "framepack extend video",
                "framepack first last frame",
                "framepack video to video",
                "framepack reference",
            ],
            inputs=[
                io.Image.Input("images", tooltip="One image is a still; five or more are a clip."),
                io.Vae.Input("vae", tooltip="HunyuanVideo's VAE."),
                io.Combo.Input(
                    "at",
                    options=list(ATS),
                    default="start",
                    tooltip="start: the video goes on from it. end: the video leads up to it. time: where seconds says.",
                ),
                io.Float.Input(
                    "seconds",
                    default=0.0,
                    min=0.0,
                    max=MAX_SECONDS,
                    step=0.1,
                    tooltip="When in the finished video, if at is time. What is fixed moves to the nearest place with whole "
                    "sections on both sides, at most half a section away; the sampler says where.",
                ),
                io.Combo.Input(
                    "use",
                    options=list(USES),
                    default="fixed",
                    tooltip="fixed: part of the video. guide: only shown, in the place of the start image, to the sections "
                    "that make its time; of a clip its first image.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="SigLIP (sigclip_vision_patch14_384). With it, sections near this image know its content; of a "
                    "clip its last frame after it, its first before it.",
                ),
                FramesType.Input("frames", optional=True, tooltip="What is placed already, from another FramePack Place."),
                io.Int.Input(
                    "base_resolution",
                    default=BASE,
                    min=STEP,
                    max=2048,
                    step=STEP,
                    optional=True,
                    tooltip="The size, as in FramePack Encode Image. All that is placed gets the size of the first "
                    "in the chain.",
                ),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=1.0,
                    max=MAX_FPS,
                    step=1.0,
                    optional=True,
                    tooltip="Frame rate of a clip, as Get Video Components gives it.",
                ),
                PlanType.Input(
                    "plan",
                    optional=True,
                    tooltip="Needed only for a plan with another rate than 30, and only by the first of a chain: clips are "
                    "brought to the plan's rate.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What is seen of a guide, or of a still for FramePack One Frame: white is, black is not. "
                    "clip_vision sees the whole image all the same. Masks of transparency are the other way round: use "
                    "InvertMask. With times, one mask for all images, or one for each.",
                ),
                io.String.Input(
                    "times",
                    default="",
                    optional=True,
                    tooltip="Keyframes from one batch: makes each image a still at a time of its own, in seconds of the "
                    "finished video, like start, 1.2, 3.5, end. at and seconds are then not used.",
                ),
            ],
            outputs=[
                FramesType.Output(display_name="frames", tooltip="For a FramePack sampler, or the next FramePack Place."),
                io.Image.Output(display_name="images", tooltip="What is used: resized, cropped, at the plan's rate."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @named_errors
    def execute(
        cls,
        images,
        vae,
        at: At,
        seconds: float,
        use: Use,
        clip_vision=None,
        frames: Frames | None = None,
        base_resolution: int = BASE,
        fps: float = 30.0,
        plan: Plan | None = None,
        mask=None,
        times: str = "",
    ) -> io.NodeOutput:
        before = chained(frames, plan)
        picture = Picture(images, at, use, seconds, fps, mask)
        placed, used, text = place_all(pictures(picture, times), before, vae, clip_vision, base_resolution)
        progress_text(cls)(text)
        return io.NodeOutput(placed, used)


class RedoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_Redo",
            display_name="FramePack Redo",
            category="FramePack/frames",
            description="Makes some sections of a finished video again. Everything else stays as it is, and the new sections "
            "are made to fit in.",
            search_aliases=["framepack repair section", "framepack regenerate section", "framepack fix part of video"],
            inputs=[
                io.Latent.Input("latent", tooltip="The finished video, from a FramePack sampler."),
                PlanType.Input("plan", tooltip="The plan that it was sampled with, from FramePack Plan."),
                io.String.Input(
                    "sections",
                    default="1",
                    tooltip="Which sections, by their numbers in the plan's drawing: 3, or 2,4-5.",
                ),
            ],
            outputs=[
                PlanType.Output(display_name="plan", tooltip="For a second sampler: only these sections."),
                FramesType.Output(display_name="frames", tooltip="For the same sampler, in place of its start_latent."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @named_errors
    def execute(cls, latent: dict, plan: Plan, sections: str) -> io.NodeOutput:
        video, before = video_latent(latent, "latent"), latent.get(BEFORE)
        plan, frames, notes = sections_again(sections, plan, video, length_of(latent), made_of(latent), before)
        if notes:
            progress_text(cls)("\n".join(notes))
        return io.NodeOutput(plan, frames)
