from comfy_api.latest import io

from ..framepack_core.comfyui.sampling.timed import encode, with_time
from ..framepack_core.plan import Plan
from ..framepack_core.prompts import MAX_SECONDS, parse, span_of, table
from .schema import PlanType, named_errors, progress_text


class PromptTimelineNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_PromptTimeline",
            display_name="FramePack Prompt Timeline",
            category="FramePack/conditioning",
            description="A prompt that changes with time: each section of the video is told what happens in its seconds.",
            search_aliases=[
                "framepack timed prompt",
                "framepack timestamped prompt",
                "framepack prompt schedule",
                "framepack text encode",
                "prompt travel",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoders that CLIP Text Encode would get."),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What happens when, in seconds of the finished video: a cat sits [2s: it jumps] [4s-5.5s: it "
                    "lands]. Text outside the brackets counts at all other times. -1s is a second before the end; ~1s after "
                    "the time makes the change take a second.",
                ),
                PlanType.Input(
                    "plan",
                    optional=True,
                    tooltip="With it, the table says what each section of the plan's video is told.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="For a FramePack sampler or a guider, as positive or negative. Other samplers use only what counts "
                    "at the beginning.",
                ),
                io.String.Output(display_name="table", tooltip="Which words count when."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, text) -> bool | str:
        if text is None:
            return True  # a linked value is not known before the graph runs
        try:
            parse(text)
        except ValueError as error:
            return f"FramePack_PromptTimeline: {error}"
        return True

    @classmethod
    @named_errors
    def execute(cls, clip, text: str, plan: Plan | None = None) -> io.NodeOutput:
        prompts = parse(text)
        spelled = table(prompts, plan)
        progress_text(cls)(spelled)
        return io.NodeOutput(encode(clip, prompts), spelled)


class SetVideoTimeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_SetVideoTime",
            display_name="FramePack Set Video Time",
            category="FramePack/conditioning",
            description="Makes a prompt count for a time of the video only. Join several with Conditioning (Combine).",
            search_aliases=["framepack timed conditioning", "framepack conditioning time range", "framepack prompt schedule"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="From any text encoder, with or without hooks, areas and masks."),
                _seconds("start", "From when on it counts, in seconds of the finished video. Negative: before its end."),
                _seconds("end", "Until when. 0: to the end; negative: before the end."),
                io.Float.Input(
                    "fade",
                    default=0.0,
                    min=0.0,
                    max=MAX_SECONDS,
                    step=0.1,
                    round=0.01,
                    optional=True,
                    tooltip="How many seconds it takes to come in, and what follows its end too. 0 changes from one section to "
                    "the next.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="For Conditioning (Combine), or a FramePack sampler. What has no time counts where nothing else "
                    "does.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, start, end, fade=0.0) -> bool:
        """Raises what is wrong: a text that is returned would be shown once for each of these inputs."""
        values = (start, end, fade)
        if not any(value is None or isinstance(value, str) for value in values):
            try:
                span_of(*values)
            except ValueError as error:
                raise ValueError(f"FramePack_SetVideoTime: {error}") from error
        return True

    @classmethod
    @named_errors
    def execute(cls, conditioning, start: float, end: float, fade: float = 0.0) -> io.NodeOutput:
        return io.NodeOutput(with_time(conditioning, span_of(start, end, fade)))


def _seconds(name: str, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=0.0, min=-MAX_SECONDS, max=MAX_SECONDS, step=0.1, round=0.01, tooltip=tooltip)
