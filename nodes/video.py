from comfy.cli_args import args
from comfy_api.latest import Input, InputImpl, io, ui

from ..framepack_core.comfyui.decoding.heap import large_blocks_returned
from ..framepack_core.comfyui.decoding.stream import ATTENTION_FRAMES, EXACT, LINEAR, footage, reported
from ..framepack_core.comfyui.latent import marked_length
from ..framepack_core.comfyui.marking import chosen_mark
from ..framepack_core.comfyui.originals import CROSSFADE, Originals
from ..framepack_core.comfyui.output import output_place, require_prefix
from ..framepack_core.frames import MAX_FPS
from ..framepack_core.media.containers import AUTO, CODEC_NAMES, CONTAINER_NAMES
from ..framepack_core.media.saving import save_video
from ..framepack_core.media.sound import Audio
from ..framepack_core.media.video import PIXEL_FORMATS, Encoding
from .schema import named_errors, progress_text


class SaveVideoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_SaveVideo",
            display_name="FramePack Save Video",
            category="FramePack/video",
            description="Decodes a sampled video and writes it to a file a few frames at a time, so that a long video needs no "
            "more memory than a short one. The video that it continues or leads up to can be joined to it.",
            search_aliases=[
                "framepack save mp4",
                "framepack long video",
                "framepack decode to file",
                "framepack join videos",
                "framepack extend video",
                "stream decode",
                "h264",
                "webm",
                "prores",
            ],
            inputs=[
                io.Latent.Input("latent", tooltip="The video from a FramePack sampler."),
                io.Vae.Input("vae", tooltip="The model's VAE: HunyuanVideo's for FramePack, Wan's for Helios."),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=1.0,
                    max=MAX_FPS,
                    step=1.0,
                    tooltip="Frame rate of the file. FramePack's motion is made for 30, Helios' for 24; other "
                    "values change its speed.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/FramePack",
                    tooltip="Folder within the output folder, and the start of the file's name. May contain %date:yyyy-MM-dd% "
                    "and values of other nodes, e.g. %FramePack Sampler.seed%.",
                ),
                io.Int.Input(
                    "crf",
                    default=16,
                    min=0,
                    max=51,
                    tooltip="Quality: lower is better and larger. At 16 the loss is invisible, 23 is about half the size, 0 is "
                    "lossless. VP9 and AV1 are better and larger at the same number; ProRes ignores it.",
                ),
                io.Combo.Input(
                    "pixel_format",
                    options=list(PIXEL_FORMATS),
                    default=PIXEL_FORMATS[0],
                    optional=True,
                    tooltip="yuv420p plays everywhere. yuv444p keeps edges between colours sharp, yuv420p10le keeps gradients "
                    "smooth; many players and browsers can show neither. ProRes is 422 HQ, or 4444 with yuv444p.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound that starts with the video and is cut to its length. With before it starts where that ends, "
                    "with after it is cut where that begins.",
                ),
                io.Boolean.Input(
                    "png_frames",
                    default=False,
                    optional=True,
                    tooltip="Also saves every frame as a lossless PNG, in a folder beside the video and of the same name.",
                ),
                io.Combo.Input(
                    "blending",
                    options=[EXACT, LINEAR],
                    default=EXACT,
                    optional=True,
                    tooltip="exact: as if the whole video were decoded at once. linear: sections are decoded one by one and "
                    "blended into each other, as in the official program. Helios' sections are always "
                    "decoded one by one, and are not blended.",
                ),
                io.Int.Input(
                    "attention_frames",
                    default=ATTENTION_FRAMES,
                    min=16,
                    max=4096,
                    step=2,
                    optional=True,
                    tooltip="How many latent frames HunyuanVideo's decoder looks at to decode each one. A video with no more "
                    "than this is decoded exactly; in a longer one the decoder sees the frames nearby and others spread over "
                    "the rest. Memory and time grow in proportion. Other VAEs, linear and Helios ignore it.",
                ),
                io.Video.Input(
                    "before",
                    optional=True,
                    tooltip="The video that this one continues, whose frames FramePack Place was given at start. The file "
                    "begins with all of it, sound included, at this size and rate. With Helios the new frames "
                    "come right after it.",
                ),
                io.Video.Input(
                    "after",
                    optional=True,
                    tooltip="The video that this one leads up to, whose frames FramePack Place was given at end. The file ends "
                    "with all of it, sound included, at this size and rate.",
                ),
                io.Int.Input(
                    "crossfade",
                    default=CROSSFADE,
                    min=0,
                    max=73,
                    optional=True,
                    tooltip="Over how many of the frames that both videos have, next to the new ones, one becomes the other. 0 "
                    "is a hard cut. Helios' videos have none of those frames, so it does nothing there.",
                ),
                io.Combo.Input(
                    "container",
                    options=list(CONTAINER_NAMES),
                    default=AUTO,
                    optional=True,
                    tooltip="auto: mp4, webm for vp9 and av1, mov for prores. Browsers play mp4 and webm; mkv holds all.",
                ),
                io.Combo.Input(
                    "codec",
                    options=list(CODEC_NAMES),
                    default=AUTO,
                    optional=True,
                    tooltip="auto: h264, or vp9 in webm. vp9 and av1 make smaller files and take longer; prores makes large "
                    "ones for editing.",
                ),
                io.Boolean.Input(
                    "mark_as_ai",
                    default=True,
                    optional=True,
                    tooltip="The file and each PNG say in their tags that they are AI-generated. If there are certificates, a "
                    "key and c2pa-python, mp4, mov and PNG are signed too (C2PA). No pixel is changed.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The saved file, for Save Video or any node that takes a VIDEO.")
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, filename_prefix, pixel_format=PIXEL_FORMATS[0], container=AUTO, codec=AUTO, mark_as_ai=True
    ) -> bool | str:
        """A linked value is None, and not known before the graph runs."""
        try:
            if mark_as_ai is not None:
                chosen_mark(mark_as_ai)
            if None not in (filename_prefix, pixel_format, container, codec):
                encoding = Encoding(pixel_format=pixel_format, container=container, codec=codec)
                require_prefix(filename_prefix, encoding.chosen.suffix)
        except ValueError as error:
            return f"FramePack_SaveVideo: {error}"
        return True

    @classmethod
    @named_errors
    def execute(
        cls,
        latent: dict,
        vae,
        fps: float,
        filename_prefix: str,
        crf: int,
        pixel_format: str = PIXEL_FORMATS[0],
        audio: dict | None = None,
        png_frames: bool = False,
        blending: str = EXACT,
        attention_frames: int = ATTENTION_FRAMES,
        before: Input.Video | None = None,
        after: Input.Video | None = None,
        crossfade: int = CROSSFADE,
        container: str = AUTO,
        codec: str = AUTO,
        mark_as_ai: bool = True,
    ) -> io.NodeOutput:
        encoding = Encoding(fps, crf, pixel_format, container, codec)
        mark = chosen_mark(mark_as_ai, before, after)
        video = footage(vae, latent["samples"], blending, attention_frames, marked_length(latent))
        sound = None if audio is None else Audio.of(audio)
        joined = Originals(before, after, crossfade).join(latent, video, encoding, sound)
        if notes := (*joined.notes, *(mark.notes(encoding.chosen.suffix) if mark else ())):
            progress_text(cls)("\n".join(notes))
        place, subfolder = output_place(
            filename_prefix, encoding.chosen.suffix, cls.hidden.prompt or {}, video.width, video.height
        )
        with large_blocks_returned():
            file = save_video(place, reported(joined.video), encoding, joined.sound, cls.metadata(), png_frames, mark)
        saved = ui.SavedResult(file.name, subfolder, io.FolderType.output)
        return io.NodeOutput(InputImpl.VideoFromFile(str(file)), ui=ui.PreviewVideo([saved]))

    @classmethod
    def metadata(cls) -> dict:
        """The prompt and workflow, as ComfyUI's own Save Video writes them."""
        if args.disable_metadata:
            return {}
        prompt = {} if cls.hidden.prompt is None else {"prompt": cls.hidden.prompt}
        return {**(cls.hidden.extra_pnginfo or {}), **prompt}
