"""What several nodes share: the types of plans and of given frames, and errors that name the node."""

from collections.abc import Callable
from functools import wraps

from comfy_api.latest import io
from server import PromptServer

from ..framepack_core.comfyui import private

PlanType = io.Custom("FRAMEPACK_PLAN")
FramesType = io.Custom("FRAMEPACK_FRAMES")


def named_errors(execute: Callable) -> Callable:
    """Prefix the core's errors about bad input, files, or a ComfyUI that lacks something, with the node's id."""

    @wraps(execute)
    def run(cls: type[io.ComfyNode], *args, **kwargs) -> io.NodeOutput:
        try:
            return execute(cls, *args, **kwargs)
        except (ValueError, private.Missing) as error:
            raise ValueError(f"{cls.define_schema().node_id}: {error}") from error
        except OSError as error:
            raise OSError(f"{cls.define_schema().node_id}: {error}") from error

    return run


def progress_text(node: type[io.ComfyNode]) -> Callable[[str], None]:
    """A function that shows a line of text in the running node."""
    return lambda text: PromptServer.instance.send_progress_text(text, node.hidden.unique_id)
