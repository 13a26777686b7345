from comfy_api.latest import Input, io

from ..framepack_core.comfyui.encoding import to_image
from ..framepack_core.comfyui.settings import is_light
from ..framepack_core.comfyui.watching import Watched
from ..framepack_core.drawing.palette import DARK, LIGHT
from ..framepack_core.frames import MAX_FPS
from ..framepack_core.measures.plot import plot
from ..framepack_core.measures.report import Report
from ..framepack_core.measures.series import Series
from ..framepack_core.plan import MAX_WINDOW
from .schema import named_errors, progress_text


class MeasureVideoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_MeasureVideo",
            display_name="FramePack Measure Video",
            category="FramePack/video",
            description="Measures how far a video drifts from its start, how much it moves, and whether its joins show. It "
            "works with any video and needs no model.",
            search_aliases=["framepack drift", "framepack quality", "video metrics", "sharpness", "color drift"],
            inputs=[
                io.Image.Input("images", optional=True, tooltip="The frames of a video. Connect either these or video."),
                io.Video.Input("video", optional=True, tooltip="A video, e.g. from FramePack Save Video or Load Video."),
                io.Int.Input(
                    "latent_window",
                    default=9,
                    min=0,
                    max=MAX_WINDOW,
                    tooltip="The plan's window, which says where sections meet: joins are looked for there. 0 is for a video "
                    "without sections.",
                ),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=1.0,
                    max=MAX_FPS,
                    step=1.0,
                    optional=True,
                    tooltip="Frame rate of images. A video has its own.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="The measures as text, for Preview as Text."),
                io.Image.Output(display_name="plot", tooltip="The measures over time, for Preview Image."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @named_errors
    def execute(cls, latent_window: int, images=None, video: Input.Video | None = None, fps: float = 30.0) -> io.NodeOutput:
        watched = Watched.of(images, video, fps)
        report = Report(Series.of(watched.frames), watched.fps, latent_window)
        progress_text(cls)("\n".join(report.summary()))
        return io.NodeOutput(report.table(), to_image(plot(report, LIGHT if is_light() else DARK)))
