"""The nodes: schema, inputs, one call into the core, outputs.

Each module is imported separately: if something it needs is gone from ComfyUI, only its own nodes are missing.
"""

from importlib import import_module

from comfy_api.latest import ComfyExtension, io

from ..framepack_core.comfyui.log import log

NODES = {
    "model": ("LoadModelNode", "LoadLoraNode", "CacheNode"),
    "demo": ("LoadDemoNode",),
    "image": ("EncodeImageNode", "DemoImageNode", "DecodeNode"),
    "frames": ("PlaceNode", "RedoNode"),
    "planning": ("PlanNode", "DrawPlanNode"),
    "prompts": ("PromptTimelineNode", "SetVideoTimeNode"),
    "sampling": ("SamplerNode", "SamplerCustomNode", "OneFrameNode"),
    "solver": ("UniPCNode", "SchedulerNode"),
    "video": ("SaveVideoNode",),
    "measuring": ("MeasureVideoNode",),
}


class FramePackExtension(ComfyExtension):
    async def on_load(self) -> None:
        """Let ComfyUI's own loaders recognise FramePack, and its front end ask for drawings."""
        try:
            from ..framepack_core.comfyui.model.framepack import register

            register()
        except ImportError as error:
            log.error("FramePack: %s", error)
        try:
            from ..framepack_core.comfyui.live import add_routes

            add_routes()
        except ImportError as error:
            log.error("FramePack: plans and prompts are not drawn in their nodes: %s", error)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module, names in NODES.items() for node in load(module, names)]


def load(module: str, names: tuple[str, ...]) -> list[type[io.ComfyNode]]:
    """The nodes of a module, or none and a line in the log if it cannot be imported."""
    try:
        part = import_module(f".{module}", __name__)
    except ImportError as error:
        log.error("FramePack: %s cannot be loaded: %s", ", ".join(names), error)
        return []
    return [getattr(part, name) for name in names]
