from comfy_api.latest import io, ui

from ..framepack_core.comfyui.chunked import STEP as CHUNKS_STEP
from ..framepack_core.comfyui.chunked import encode_still, in_chunks
from ..framepack_core.comfyui.decoding.stream import decode_video
from ..framepack_core.comfyui.encoding import encode_images, fit_image
from ..framepack_core.comfyui.latent import STILL, marked_length
from ..framepack_core.demo.scenes import draw_scene
from ..framepack_core.weights.buckets import BASE, STEP
from .schema import named_errors

MAX_SCENE = 0xFFFFFFFF


class EncodeImageNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_EncodeImage",
            display_name="FramePack Encode Image",
            category="FramePack/image",
            description="Resizes and crops a start or end image to a size FramePack was trained on and encodes it for the "
            "sampler.",
            search_aliases=["framepack start image", "framepack image to video", "framepack bucket", "first frame"],
            inputs=[
                io.Image.Input("image", tooltip="One image: the video's first frame, or its last for end_latent."),
                io.Vae.Input("vae", tooltip="HunyuanVideo's VAE."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="SigLIP (sigclip_vision_patch14_384). Without it, the model knows the image only from its latent "
                    "and keeps to its content less closely.",
                ),
                io.Int.Input(
                    "base_resolution",
                    default=BASE,
                    min=STEP,
                    max=2048,
                    step=STEP,
                    tooltip="640 is what the checkpoints were trained on. Smaller is faster and rougher. The image is cropped "
                    "to the nearest trained shape at this size, in multiples of 32 pixels.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The encoded image, for a sampler's start_latent or end_latent."
                ),
                io.ClipVisionOutput.Output(
                    display_name="clip_vision_output", tooltip="What the image shows; empty without clip_vision."
                ),
                io.Image.Output(display_name="image", tooltip="The image as the model sees it: resized and cropped."),
            ],
        )

    @classmethod
    @named_errors
    def execute(cls, image, vae, clip_vision=None, base_resolution: int = BASE) -> io.NodeOutput:
        apart = in_chunks(vae)
        image = fit_image(image, base_resolution, CHUNKS_STEP if apart else STEP)
        vision = None if clip_vision is None else clip_vision.encode_image(image, crop=False)
        latent = {"samples": encode_images(vae, image)}
        if apart:
            latent[STILL] = encode_still(vae, image)
        return io.NodeOutput(latent, vision, image)


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
                    max=MAX_SCENE,
                    control_after_generate=True,
                    tooltip="Each seed draws a different scene. The demo models were trained on none of them.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The scene, 128x128, for FramePack Encode Image."),
                io.String.Output(
                    display_name="prompt", tooltip="What could happen in the scene, in words the demo models know."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @named_errors
    def execute(cls, seed: int) -> io.NodeOutput:
        image, prompt = draw_scene(seed)
        return io.NodeOutput(image, prompt, ui=ui.PreviewImage(image, cls=cls))


class DecodeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_Decode",
            display_name="FramePack Decode",
            category="FramePack/image",
            description="Decodes a sampled video to images, a few frames at a time: T latent frames give 4 T - 3 images, and "
            "with Helios each nine of them 33.",
            search_aliases=["framepack vae decode", "framepack video frames"],
            inputs=[
                io.Latent.Input("latent", tooltip="The video from a FramePack sampler."),
                io.Vae.Input("vae", tooltip="The model's VAE: HunyuanVideo's for FramePack, Wan's for Helios."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="All frames in order, for Create Video or Save Image.")],
        )

    @classmethod
    @named_errors
    def execute(cls, latent: dict, vae) -> io.NodeOutput:
        return io.NodeOutput(decode_video(vae, latent["samples"], marked_length(latent)))
