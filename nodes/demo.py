from comfy_api.latest import io, ui

from ..framepack_core.comfyui.demo import draw_scene, load_demo
from .schema import named_errors

MAX_SEED = 0xFFFFFFFF


class LoadDemoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_LoadDemo",
            display_name="Load FramePack Demo",
            category="FramePack/loaders",
            description="Small models that come with this pack and run on any computer. They know a world of coloured shapes "
            "that move, at 128x128 pixels, and work in every node that FramePack's do.",
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


class DemoImageNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_DemoImage",
            display_name="FramePack Demo Image",
            category="FramePack/image",
            description="Draws a start image that the demo models understand: one or two coloured shapes on a background.",
            search_aliases=["framepack demo start image", "framepack example image", "coloured shapes", "synthetic scene"],
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Each seed is another scene. The demo models have seen none of them in training.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The scene, 128x128, for FramePack Encode Image."),
                io.String.Output(display_name="prompt", tooltip="What could happen in it, in words that the demo models know."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @named_errors
    def execute(cls, seed: int) -> io.NodeOutput:
        image, prompt = draw_scene(seed)
        return io.NodeOutput(image, prompt, ui=ui.PreviewImage(image, cls=cls))
