from comfy_api.latest import io

from ..framepack_core.caching import Skipping
from ..framepack_core.comfyui.loading.checkpoints import WEIGHT_DTYPES, load, model_names
from ..framepack_core.comfyui.loading.loras import load as load_lora
from ..framepack_core.comfyui.loading.loras import lora_names
from ..framepack_core.comfyui.sampling.cache import METHODS, tables_state, with_method
from ..framepack_core.weights.variants import AUTO, VARIANTS
from .schema import named_errors, progress_text


class LoadModelNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_LoadModel",
            display_name="Load FramePack Model",
            category="FramePack/loaders",
            description="Loads a FramePack or Helios checkpoint as an ordinary MODEL: LoRA loaders, EasyCache, torch.compile "
            "and low-VRAM offload work on it as on any other.",
            search_aliases=[
                "framepack loader",
                "FramePackI2V_HY",
                "FramePack F1",
                "load framepack checkpoint",
                "helios loader",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=model_names(),
                    tooltip="A .safetensors or .gguf file, or a folder with shards (ends in /), under models/diffusion_models "
                    "or models/diffusers. FramePackI2V goes with the inverted order, FramePack F1 and Helios with forward.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept in memory. default keeps the file's precision; fp8 halves the memory a bf16 "
                    "file needs, at a small loss of detail. Quantised files and GGUF keep their own formats.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "variant",
                    options=[AUTO, *VARIANTS],
                    default=AUTO,
                    optional=True,
                    tooltip="Which Helios it is, which decides steps, sampler and stages: nothing in its weights tells. auto "
                    "goes by the name of the file or its folder. FramePack has no variants.",
                    advanced=True,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The transformer, for FramePack samplers and any model patch.")],
        )

    @classmethod
    @named_errors
    def execute(cls, model_name: str, weight_dtype: str, variant: str = AUTO) -> io.NodeOutput:
        return io.NodeOutput(load(model_name, weight_dtype, variant))


class LoadLoraNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_LoadLora",
            display_name="Load FramePack LoRA",
            category="FramePack/loaders",
            description="Adds a LoRA to a FramePack or Helios model, however its trainer named the weights: the names that "
            "ComfyUI's own loaders know, and those of diffusers, finetrainers, diffusion-pipe and musubi, which these leave "
            "out. Chain several for a stack.",
            search_aliases=[
                "framepack lora",
                "load lora framepack",
                "hunyuan lora",
                "helios lora",
                "wan lora",
                "musubi lora",
                "loha",
                "lokr",
                "dora",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A FramePack or Helios model, with other LoRAs or without."),
                io.Combo.Input(
                    "lora_name",
                    options=lora_names(),
                    tooltip="A file under models/loras: a LoRA, LoHa, LoKr or DoRA: on FramePack for FramePack or "
                    "HunyuanVideo, on Helios for Helios or Wan 14B.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How much of the LoRA is added. Negative values take it away; 0 leaves the model as it is. LoRAs "
                    "of HunyuanVideo on FramePack, and of Wan on Helios, often need another strength than on their own model.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the LoRA, for a sampler or another LoRA."),
                io.String.Output(display_name="matched", tooltip="What of the file changes the model, and what is not used."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @named_errors
    def execute(cls, model, lora_name: str, strength: float) -> io.NodeOutput:
        patched, report = load_lora(model, lora_name, strength)
        progress_text(cls)(report)
        return io.NodeOutput(patched, report)


def _share(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


class CacheNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FramePack_Cache",
            display_name="FramePack Cache",
            category="FramePack/sampling",
            description="Makes sampling faster: some steps are not computed, but continued from those before. The video is a "
            "little different. Says how many calls of the model each section was spared.",
            search_aliases=["framepack teacache", "magcache", "easycache", "step cache", "faster framepack", "speed up"],
            inputs=[
                io.Model.Input("model", tooltip="A FramePack model, with LoRAs or without."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="How it is decided which steps are skipped. easycache measures the error while it runs, and works "
                    "with every checkpoint; magcache takes it from a table for FramePackI2V or F1, by the file's name, or from "
                    "your own; measure computes all and makes a table of any checkpoint, which magcache then uses; off "
                    "computes all.",
                ),
                io.Float.Input(
                    "threshold",
                    default=Skipping.threshold,
                    min=0.0,
                    max=2.0,
                    step=0.005,
                    round=0.0001,
                    tooltip="How much error is allowed from one computed step to the next. Higher is faster and less exact: "
                    "0.1 computes about a third of the steps; 0 computes all. For magcache choose about 0.05: its errors are "
                    "those of a step that repeats the last one, which are larger.",
                ),
                _share(
                    "start",
                    Skipping.start,
                    "The share of the steps after which some may be skipped. The first steps decide composition and motion.",
                ),
                _share("end", Skipping.end, "The share of the steps after which all are computed. The last step always is."),
                io.Int.Input(
                    "max_skips",
                    default=Skipping.max_skips,
                    min=1,
                    max=20,
                    tooltip="The most steps in a row that are skipped.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the cache, for a sampler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @named_errors
    def execute(cls, model, method: str, threshold: float, start: float, end: float, max_skips: int) -> io.NodeOutput:
        skipping = Skipping(threshold, start, end, max_skips)
        return io.NodeOutput(with_method(model, method, skipping, progress_text(cls)))

    @classmethod
    def fingerprint_inputs(cls, method: str, **inputs) -> object:
        return tables_state(method)
