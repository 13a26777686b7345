"""The nodes: schema, inputs, one call into the core, outputs."""

from comfy_api.latest import ComfyExtension

from ..framepack_core.comfyui.model import register
from .demo import DemoImageNode, LoadDemoNode
from .image import DecodeNode, EncodeImageNode
from .model import LoadModelNode
from .planning import DrawPlanNode, PlanNode
from .sampling import SamplerCustomNode, SamplerNode, SchedulerNode, UniPCNode
from .video import SaveVideoNode


class FramePackExtension(ComfyExtension):
    async def on_load(self) -> None:
        register()

    async def get_node_list(self) -> list:
        return [
            LoadModelNode,
            LoadDemoNode,
            DemoImageNode,
            EncodeImageNode,
            PlanNode,
            DrawPlanNode,
            SamplerNode,
            SamplerCustomNode,
            UniPCNode,
            SchedulerNode,
            DecodeNode,
            SaveVideoNode,
        ]
