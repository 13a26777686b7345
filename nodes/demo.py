from comfy_api.latest import io

from ..framepack_core.comfyui.demo import load_demo
from .schema import named_errors


class LoadDemoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_LoadDemo",
            display_name="Load FramePack Demo",
            category="FramePack/loaders",
            description="Small models that come with this pack and run on any computer. They know only moving coloured shapes, "
            "at 128x128 pixels, and work in every node that takes FramePack's models.",
            search_aliases=[
                "framepack demo",
                "framepack example",
                "framepack without download",
                "framepack cpu",
                "try framepack",
            ],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The demo's transformer, for FramePack samplers and any model patch."),
                io.Clip.Output(tooltip="For CLIP Text Encode: say what a shape does, e.g. a red star moves left."),
                io.Vae.Output(tooltip="For FramePack Encode Image, FramePack Decode, and ComfyUI's own VAE nodes."),
                io.ClipVision.Output(tooltip="For FramePack Encode Image, or CLIP Vision Encode (crop none)."),
            ],
        )

    @classmethod
    @named_errors
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_demo())
