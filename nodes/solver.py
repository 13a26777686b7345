from comfy_api.latest import io

from ..framepack_core.comfyui.sampling.samplers import unipc, window_sigmas
from ..framepack_core.plan import MAX_WINDOW
from ..framepack_core.solver import VARIANTS
from .schema import named_errors


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
                    tooltip="bh1 is the official variant and is better at few steps; bh2 differs slightly at strong guidance.",
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
            description="The official program's sigmas, which depend on the video's size.",
            search_aliases=["framepack sigmas", "flow matching shift", "resolution dependent shift"],
            inputs=[
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Steps per section."),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="0 picks the right value for the size. Higher spends more steps on composition and motion.",
                ),
                io.Latent.Input("latent", tooltip="The start latent, which sets the size."),
                io.Int.Input("window", default=9, min=1, max=MAX_WINDOW, tooltip="Latent frames made at once, as in the plan."),
            ],
            outputs=[io.Sigmas.Output(tooltip="For FramePack Sampler (Custom).")],
        )

    @classmethod
    @named_errors
    def execute(cls, steps: int, shift: float, latent: dict, window: int) -> io.NodeOutput:
        return io.NodeOutput(window_sigmas(latent["samples"], window, steps, shift))
