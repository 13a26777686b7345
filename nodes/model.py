from comfy_api.latest import io

from ..framepack_core.comfyui.loading.checkpoints import WEIGHT_DTYPES, load, model_names
from .schema import named_errors


class LoadModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_LoadModel",
            display_name="Load FramePack Model",
            category="FramePack/loaders",
            description="Loads a FramePack checkpoint as an ordinary MODEL: LoRA loaders, EasyCache, torch.compile and "
            "low-VRAM offload work on it as on any other.",
            search_aliases=["framepack loader", "FramePackI2V_HY", "FramePack F1", "load framepack checkpoint"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=model_names(),
                    tooltip="A .safetensors or .gguf file, or a folder with shards (ends in /), under models/diffusion_models "
                    "or models/diffusers. FramePackI2V goes with the inverted order, FramePack F1 with the forward order.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept in memory. default keeps the file's precision; fp8 halves the memory a bf16 "
                    "file needs, at a small loss of detail. Quantised files and GGUF keep their own formats.",
                    advanced=True,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The FramePack transformer, for FramePack samplers and any model patch.")],
        )

    @classmethod
    @named_errors
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        return io.NodeOutput(load(model_name, weight_dtype))
