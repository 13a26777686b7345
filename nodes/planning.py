from typing import Any, NotRequired, TypedDict, Unpack

from comfy_api.latest import io

from ..framepack_core.comfyui.encoding import to_image
from ..framepack_core.comfyui.settings import is_light
from ..framepack_core.drawing.painting import draw_plan
from ..framepack_core.drawing.palette import DARK, LIGHT
from ..framepack_core.foreseen import with_start_image
from ..framepack_core.frames import MAX_FPS
from ..framepack_core.layout import PRESETS, chosen_layout
from ..framepack_core.orders import ORDERS, PADDINGS, Paddings
from ..framepack_core.placing import Arrangement, Frames
from ..framepack_core.plan import MAX_LOOP, MAX_SECONDS, MAX_WINDOW, PROMPTS, Plan, without_effect
from .schema import FramesType, PlanType, named_errors, progress_text

NUMBERS = ("seconds", "window", "fps", "loop")


class PlanInputs(TypedDict):
    """What a plan is made of: the inputs of FramePack Plan but the model. ComfyUI leaves out those that a workflow has not."""

    seconds: float
    order: str
    window: int
    layout: str
    fps: float
    custom_layout: NotRequired[str]
    paddings: NotRequired[Paddings]
    exact_length: NotRequired[bool]
    loop: NotRequired[int]
    parts: NotRequired[str]
    reanchor: NotRequired[bool]


class PlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_Plan",
            display_name="FramePack Plan",
            category="FramePack/planning",
            description="Sets how long the video is, in which order its sections are made, and what each section sees.",
            search_aliases=["framepack length", "framepack seconds", "framepack order", "framepack layout", "frame packing"],
            inputs=[
                io.Float.Input(
                    "seconds",
                    default=5.0,
                    min=0.1,
                    max=MAX_SECONDS,
                    step=0.1,
                    tooltip="Length of the video, rounded to whole sections (1.2 s each at 30 fps and window 9), without those "
                    "that connect a loop. Doubling it doubles the time but needs no more memory.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default="inverted",
                    tooltip="inverted makes the end first and works back to the start image (FramePackI2V). "
                    "forward continues from the start image: more motion (F1). endpoints makes both ends first, then "
                    "fills the gap.",
                ),
                io.Int.Input(
                    "window",
                    default=9,
                    min=1,
                    max=MAX_WINDOW,
                    tooltip="Latent frames made at once (4 video frames each). 9 is what the checkpoints were trained with; "
                    "fewer need less memory but make more joins and more drift.",
                ),
                io.Combo.Input(
                    "layout",
                    options=["auto", *PRESETS, "custom"],
                    default="auto",
                    tooltip="What a section sees of the rest of the video, and how coarsely. auto picks the order's own "
                    "layout. Released checkpoints know framepack (inverted) and f1 (forward); the others are for research.",
                ),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=1.0,
                    max=MAX_FPS,
                    step=1.0,
                    tooltip="Frame rate that turns seconds into frames. FramePack was trained at 30.",
                ),
                io.String.Input(
                    "custom_layout",
                    default="",
                    optional=True,
                    tooltip="The layout when layout is custom, in the paper's notation with the oldest frames on the left, "
                    "e.g. f1k1_x_g9_f1k1f2k2f16k4_td. The number after g follows window.",
                ),
                io.Combo.Input(
                    "paddings",
                    options=list(PADDINGS),
                    default="released",
                    optional=True,
                    tooltip="How far away a section is told the start image is, in the inverted order. released: as in the "
                    "official program, which caps the distance in videos of more than 4 sections; exact: the true distance.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "exact_length",
                    default=False,
                    optional=True,
                    tooltip="Makes the video exactly as long as seconds says: it gets enough sections, and what is too much is "
                    "cut off the end when it is decoded. Not for loops.",
                ),
                io.Int.Input(
                    "loop",
                    default=0,
                    min=0,
                    max=MAX_LOOP,
                    optional=True,
                    tooltip="Makes the video a loop that repeats without a seam: this many more sections lead from its end "
                    "back to its beginning. More leave more time for the way back; 0 is off.",
                ),
                io.String.Input(
                    "parts",
                    default=PROMPTS,
                    optional=True,
                    tooltip="Where a new part of the video begins: prompts, where a timed prompt changes; seconds, like 2, "
                    "3.5, then; empty, nowhere. Parts are made one after another, each in the plan's order, and each goes on "
                    "from the frame before it instead of the start image.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "reanchor",
                    default=False,
                    optional=True,
                    tooltip="In the forward order, from the third section on, the second section's first frame takes the place "
                    "of the start image. For Helios with a picture: later sections see a frame that the model has made itself.",
                    advanced=True,
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that the plan is for, which is Helios if its sections are to be counted as Helios makes "
                    "them. FramePack needs none here.",
                ),
            ],
            outputs=[
                PlanType.Output(display_name="plan", tooltip="For the FramePack samplers and Draw Plan."),
                io.String.Output(display_name="table", tooltip="The plan as text: one line per section."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, **values: Unpack[PlanInputs]) -> bool:
        """Raises what is wrong: a text that is returned would be shown once for each of these inputs."""
        words = any(isinstance(values.get(name), str) for name in NUMBERS)  # which ComfyUI refuses itself
        if None not in values.values() and not words:  # a linked value is not known before the graph runs
            try:
                _plan(**values)
            except ValueError as error:
                raise ValueError(f"FramePack_Plan: {error}") from error
        return True

    @classmethod
    @named_errors
    def execute(cls, model: Any = None, **values: Unpack[PlanInputs]) -> io.NodeOutput:
        plan = _plan(**values)
        if model is not None:
            from ..framepack_core.comfyui.families import family_of  # which plans of FramePack do without

            plan = family_of(model).family.fit(plan)
        optional = values.get("custom_layout", ""), values.get("paddings", PADDINGS[0]), values.get("parts", "")
        if unused := without_effect(values["order"], values["layout"], *optional, apart=plan.apart):
            progress_text(cls)("\n".join(unused))
        return io.NodeOutput(plan, plan.table())


class DrawPlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_DrawPlan",
            display_name="FramePack Draw Plan",
            category="FramePack/planning",
            description="Draws a plan: what each section makes, which frames it sees and how coarsely, and which it skips.",
            search_aliases=["framepack plan picture", "framepack visualise", "framepack visualize", "show sections"],
            inputs=[
                PlanType.Input("plan", tooltip="From FramePack Plan."),
                io.Int.Input(
                    "width", default=640, min=16, max=8192, step=16, tooltip="Width of the video, for the token counts."
                ),
                io.Int.Input(
                    "height", default=608, min=16, max=8192, step=16, tooltip="Height of the video, for the token counts."
                ),
                FramesType.Input(
                    "frames",
                    optional=True,
                    tooltip="What is given of the video, from FramePack Place.",
                ),
                io.Boolean.Input(
                    "start_image",
                    default=True,
                    optional=True,
                    tooltip="Whether a start image is given, unless frames have something at the start. Off for text to video.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The drawing, for Preview Image."),
                io.String.Output(display_name="table", tooltip="The same as text: one line per section."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @named_errors
    def execute(
        cls, plan: Plan, width: int, height: int, frames: Frames | None = None, start_image: bool = True
    ) -> io.NodeOutput:
        given = frames or Frames(fps=plan.fps)
        arrangement = Arrangement.of(plan, with_start_image(given) if start_image else given)
        plan, known, guides = arrangement.plan, arrangement.known, arrangement.guides
        if notes := arrangement.notes():
            progress_text(cls)("\n".join(notes))
        picture = draw_plan(plan, width, height, known, LIGHT if is_light() else DARK, guides)
        return io.NodeOutput(to_image(picture), plan.table(known, guides))


def _plan(seconds, order, window, layout, fps, custom_layout="", parts="", loop=0, reanchor=False, **options) -> Plan:
    """`options` are the other inputs of the node, which Plan.of has by the same names."""
    chosen = chosen_layout(layout, custom_layout)
    plan = Plan.of(float(seconds), order, int(window), chosen, float(fps), loop=int(loop), reanchored=reanchor, **options)
    return plan.in_parts_of(parts)
