"""Every private symbol of ComfyUI that this pack uses, looked up and checked here and nowhere else.

ComfyUI makes no promises about them. Each is looked up when it is first needed, so that a missing one only disables what needs
it. Parameters are checked too where a shifted argument would go unnoticed.

    from .. import private

    class FramePackTransformer(private.HunyuanVideo): ...
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MODELS = "loading and sampling FramePack models"
HELIOS = "loading and sampling Helios models"
GGUF = "loading GGUF files"
FP8 = "loading files in official names, and fp8 as a weight_dtype"
EXACT_DECODING = "decoding as if the whole video were decoded at once"
TELLING_VAES = "saying that a VAE is another model's"
PREVIEWS = "previews while a video is sampled"
RESUMING = "resuming from finished sections"
DEMO = "the demo's models"
SAMPLERS = "FramePack's samplers"
LORAS = "warnings about LoRAs that change nothing"
LORA_LOADER = "Load FramePack LoRA"
PLACING = "keeping modulation layers off a card that is full"
SHARING = "computing modulations once for all sections"
CACHE = "FramePack Cache"


class Missing(ImportError):
    """A symbol is gone or has changed; the message names it, ComfyUI's version, and what does not work without it."""


@dataclass(frozen=True)
class Symbol:
    """`name` (dotted) in a module of ComfyUI, and what it `serves`.

    `calls` maps methods ("" is the symbol itself) to the parameters that are checked: first those that the pack passes or
    overrides by position, in order, then, after a `*`, those that it passes by name. `attributes` are attributes that it
    uses.
    """

    module: str
    name: str
    serves: str
    calls: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_TRANSFORMER = (
    "self x timestep context y txt_byt5 clip_fea guidance attention_mask guiding_frame_index ref_latent disable_time_r control "
    "transformer_options"
)
_DECODER = "comfy.ldm.modules.diffusionmodules.model"

SYMBOLS: dict[str, Symbol] = {
    # The model
    "HunyuanVideo": Symbol(
        "comfy.ldm.hunyuan_video.model", "HunyuanVideo", MODELS, {"forward": "self x timestep", "_forward": _TRANSFORMER}
    ),
    "DoubleStreamBlock": Symbol(
        "comfy.ldm.flux.layers",
        "DoubleStreamBlock",
        MODELS,
        {"forward": "self * img txt vec pe attn_mask modulation_dims_img modulation_dims_txt transformer_options"},
    ),
    "SingleStreamBlock": Symbol(
        "comfy.ldm.flux.layers",
        "SingleStreamBlock",
        MODELS,
        {"forward": "self x * vec pe attn_mask modulation_dims transformer_options"},
    ),
    "Modulation": Symbol(
        "comfy.ldm.flux.layers",
        "Modulation",
        MODELS,
        {"__init__": "self dim double * dtype device operations", "forward": "self vec"},
    ),
    "ModulationOut": Symbol("comfy.ldm.flux.layers", "ModulationOut", MODELS, {"": "* shift scale gate"}),
    "timestep_embedding": Symbol("comfy.ldm.flux.layers", "timestep_embedding", MODELS, {"": "t dim * time_factor"}),
    "attention_pytorch": Symbol("comfy.ldm.modules.attention", "attention_pytorch", MODELS, {"": "q k v heads"}),
    "BaseModel": Symbol(
        "comfy.model_base", "BaseModel", MODELS, {"__init__": "self model_config model_type * device unet_model"}
    ),
    "HunyuanVideoModel": Symbol(
        "comfy.model_base", "HunyuanVideo", MODELS, {"load_model_weights": "self sd unet_prefix * assign"}
    ),
    "ModelType": Symbol("comfy.model_base", "ModelType", MODELS),
    "HunyuanVideoConfig": Symbol(
        "comfy.supported_models",
        "HunyuanVideo",
        MODELS,
        {"get_model": "self state_dict prefix device", "set_inference_dtype": "self dtype manual_cast_dtype * device"},
        ("required_keys", "unet_config"),
    ),
    "supported_models": Symbol("comfy.supported_models", "models", MODELS),
    "CONDConstant": Symbol("comfy.conds", "CONDConstant", MODELS),
    "CONDList": Symbol("comfy.conds", "CONDList", MODELS, {"__init__": "self cond", "_copy_with": "self cond", "size": "self"}),
    "CONDRegular": Symbol("comfy.conds", "CONDRegular", MODELS),
    "load_diffusion_model_state_dict": Symbol(
        "comfy.sd", "load_diffusion_model_state_dict", MODELS, {"": "sd * model_options metadata disable_dynamic"}
    ),
    "convert_old_quants": Symbol("comfy.utils", "convert_old_quants", FP8, {"": "state_dict model_prefix * metadata"}),
    "archive_model_dtypes": Symbol("comfy.model_management", "archive_model_dtypes", FP8, {"": "model"}),
    # Helios
    "WanModel": Symbol(
        "comfy.ldm.wan.model",
        "WanModel",
        HELIOS,
        {
            "__init__": "self * wan_attn_block_class dim num_heads device dtype operations",
            "forward": "self x timestep",
            "_forward": "self x timestep context clip_fea time_dim_concat transformer_options",
            "unpatchify": "self x grid_sizes",
        },
    ),
    "WanAttentionBlock": Symbol(
        "comfy.ldm.wan.model",
        "WanAttentionBlock",
        HELIOS,
        {
            "__init__": "self cross_attn_type dim ffn_dim num_heads window_size qk_norm cross_attn_norm eps operation_settings",
            "forward": "self x * e freqs context transformer_options",
        },
    ),
    "WanSelfAttention": Symbol(
        "comfy.ldm.wan.model",
        "WanSelfAttention",
        HELIOS,
        {
            "__init__": "self dim num_heads window_size qk_norm eps * operation_settings",
            "forward": "self x freqs transformer_options",
        },
    ),
    "apply_rope1": Symbol("comfy.ldm.flux.math", "apply_rope1", HELIOS, {"": "x freqs_cis"}),
    "Wan21Model": Symbol("comfy.model_base", "WAN21", HELIOS, {"load_model_weights": "self sd unet_prefix * assign"}),
    "Wan21Config": Symbol(
        "comfy.supported_models",
        "WAN21_T2V",
        HELIOS,
        {"get_model": "self state_dict prefix device"},
        ("required_keys", "unet_config", "supported_inference_dtypes"),
    ),
    # GGUF
    "QuantizedLayout": Symbol("comfy.quant_ops", "QuantizedLayout", GGUF),
    "QuantizedTensor": Symbol("comfy.quant_ops", "QuantizedTensor", GGUF, {"__init__": "self qdata layout_cls params"}),
    "register_layout_class": Symbol("comfy.quant_ops", "register_layout_class", GGUF, {"": "name cls"}),
    "register_layout_op": Symbol("comfy.quant_ops", "register_layout_op", GGUF, {"": "torch_op layout_cls"}),
    "manual_cast": Symbol("comfy.ops", "manual_cast", GGUF, {"Linear.forward_comfy_cast_weights": "self input"}),
    "cast_bias_weight": Symbol("comfy.ops", "cast_bias_weight", GGUF, {"": "s input * offloadable"}),
    "uncast_bias_weight": Symbol("comfy.ops", "uncast_bias_weight", GGUF, {"": "s weight bias offload_stream"}),
    "LowVramPatch": Symbol("comfy.model_patcher", "LowVramPatch", GGUF, {"__init__": "self key patches convert_func set_func"}),
    "calculate_weight": Symbol(
        "comfy.lora", "calculate_weight", GGUF, {"": "patches weight key intermediate_dtype original_weights"}
    ),
    "ModelPatcher": Symbol(
        "comfy.model_patcher",
        "ModelPatcher",
        f"{GGUF}, and {DEMO}",
        {
            "load": "self",
            "patch_weight_to_device": "self key device_to inplace_update return_weight force_cast",
            "unpatch_model": "self device_to unpatch_weights",
            "partially_unload": "self",
            "patch_hooks": "self hooks",
            "patch_hook_weight_to_device": "self hooks combined_patches key original_weights memory_counter",
            "unpatch_hooks": "self whitelist_keys_set",
            "get_combined_hook_patches": "self hooks",
        },
    ),
    # What is on the card
    "ModelPatcherDynamic": Symbol(
        "comfy.model_patcher", "ModelPatcherDynamic", PLACING, {"_load_list": "self for_dynamic default_device"}
    ),
    # What sections share
    "WrappersMP": Symbol(
        "comfy.patcher_extension",
        "WrappersMP",
        f"{SHARING}, and {CACHE}",
        attributes=("OUTER_SAMPLE", "SAMPLER_SAMPLE", "CALC_COND_BATCH", "APPLY_MODEL", "DIFFUSION_MODEL"),
    ),
    "add_wrapper_with_key": Symbol(
        "comfy.patcher_extension",
        "add_wrapper_with_key",
        SHARING,
        {"": "wrapper_type key wrapper transformer_options * is_model_options"},
    ),
    "get_all_wrappers": Symbol(
        "comfy.patcher_extension", "get_all_wrappers", SHARING, {"": "wrapper_type transformer_options * is_model_options"}
    ),
    "create_model_options_clone": Symbol(
        "comfy.model_patcher", "create_model_options_clone", SHARING, {"": "orig_model_options"}
    ),
    # Sampling
    "CFGGuider": Symbol(
        "comfy.samplers",
        "CFGGuider",
        SAMPLERS,
        {
            "inner_set_conds": "self conds",
            "set_cfg": "self cfg",
            "sample": "self noise latent_image sampler sigmas * callback disable_pbar seed",
        },
    ),
    "CONST": Symbol("comfy.model_sampling", "CONST", SAMPLERS),
    "KSAMPLER": Symbol("comfy.samplers", "KSAMPLER", SAMPLERS, {"__init__": "self sampler_function extra_options"}),
    "sampler_object": Symbol("comfy.samplers", "sampler_object", SAMPLERS, {"": "name"}),
    "SAMPLER_NAMES": Symbol("comfy.samplers", "SAMPLER_NAMES", SAMPLERS),
    "PROGRESS_BAR_ENABLED": Symbol("comfy.utils", "PROGRESS_BAR_ENABLED", SAMPLERS),
    # LoRAs
    "model_lora_keys_unet": Symbol("comfy.lora", "model_lora_keys_unet", f"{LORAS}, and {LORA_LOADER}", {"": "model key_map"}),
    "load_lora": Symbol("comfy.lora", "load_lora", f"{LORAS}, and {LORA_LOADER}", {"": "lora to_load * log_missing"}),
    "convert_lora": Symbol("comfy.lora_convert", "convert_lora", LORAS, {"": "sd"}),
    # Resuming
    "optimized_attention": Symbol("comfy.ldm.modules.attention", "optimized_attention", f"{RESUMING}, and {HELIOS}"),
    "is_link": Symbol("comfy_execution.graph_utils", "is_link", RESUMING, {"": "obj"}),
    "DynamicPrompt": Symbol("comfy_execution.graph", "DynamicPrompt", RESUMING, {"get_node": "self node_id"}),
    "NODE_CLASS_MAPPINGS": Symbol("nodes", "NODE_CLASS_MAPPINGS", RESUMING),
    "get_executing_context": Symbol("comfy_execution.utils", "get_executing_context", f"{RESUMING}, and {PREVIEWS}", {"": ""}),
    # Previews
    "get_previewer": Symbol("latent_preview", "get_previewer", PREVIEWS, {"": "device latent_format"}),
    "LatentPreviewer": Symbol("latent_preview", "LatentPreviewer", PREVIEWS, {"decode_latent_to_preview": "self x0"}),
    "MAX_PREVIEW_RESOLUTION": Symbol("latent_preview", "MAX_PREVIEW_RESOLUTION", PREVIEWS),
    "get_progress_state": Symbol("comfy_execution.progress", "get_progress_state", PREVIEWS, {"": ""}),
    "ProgressRegistry": Symbol(
        "comfy_execution.progress", "ProgressRegistry", PREVIEWS, {"update_progress": "self node_id value max_value image"}
    ),
    "supports_feature": Symbol(
        "comfy_api.feature_flags", "supports_feature", PREVIEWS, {"": "sockets_metadata sid feature_name"}
    ),
    "UNENCODED_PREVIEW_IMAGE": Symbol("protocol", "BinaryEventTypes.UNENCODED_PREVIEW_IMAGE", PREVIEWS),
    # Decoding
    "AutoencodingEngineLegacy": Symbol("comfy.ldm.models.autoencoder", "AutoencodingEngineLegacy", EXACT_DECODING),
    "Decoder": Symbol(_DECODER, "Decoder", EXACT_DECODING),
    "conv_carry_causal_3d": Symbol(
        _DECODER, "conv_carry_causal_3d", EXACT_DECODING, {"": "xl op conv_carry_in conv_carry_out"}
    ),
    "CarriedConv3d": Symbol(_DECODER, "CarriedConv3d", EXACT_DECODING),
    "ResnetBlock": Symbol(_DECODER, "ResnetBlock", EXACT_DECODING, {"forward": "self x temb conv_carry_in conv_carry_out"}),
    "Upsample": Symbol(_DECODER, "Upsample", EXACT_DECODING, {"forward": "self x conv_carry_in conv_carry_out"}),
    "is_oom": Symbol("comfy.model_management", "is_oom", EXACT_DECODING, {"": "e"}),
    "TAEHV": Symbol("comfy.taesd.taehv", "TAEHV", EXACT_DECODING),
    "MemBlock": Symbol("comfy.taesd.taehv", "MemBlock", EXACT_DECODING),
    "TGrow": Symbol("comfy.taesd.taehv", "TGrow", EXACT_DECODING),
    "WanVAE": Symbol("comfy.ldm.wan.vae", "WanVAE", TELLING_VAES),
    # The demo
    "HunyuanVideoLatents": Symbol("comfy.latent_formats", "HunyuanVideo", DEMO),
    "ClipTokenWeightEncoder": Symbol(
        "comfy.sd1_clip", "ClipTokenWeightEncoder", DEMO, {"encode_token_weights": "self token_weight_pairs"}
    ),
    "token_weights": Symbol("comfy.sd1_clip", "token_weights", DEMO, {"": "string current_weight"}),
    "escape_important": Symbol("comfy.sd1_clip", "escape_important", DEMO, {"": "text"}),
    "unescape_important": Symbol("comfy.sd1_clip", "unescape_important", DEMO, {"": "text"}),
    "ClipVisionModel": Symbol("comfy.clip_vision", "ClipVisionModel", DEMO, {"__init__": "self json_config"}),
    "CLIP": Symbol("comfy.sd", "CLIP", DEMO, {"__init__": "self target * model_options"}),
    "VAE": Symbol("comfy.sd", "VAE", DEMO, {"__init__": "self * sd"}),
}


def __getattr__(name: str) -> Any:
    """The symbol of this name in `SYMBOLS`, as it is now. Raises Missing."""
    if name not in SYMBOLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    symbol = SYMBOLS[name]
    try:
        found = _reach(importlib.import_module(symbol.module), symbol.name)
        calls = [(_reach(found, method) if method else found, spec) for method, spec in symbol.calls.items()]
        for attribute in symbol.attributes:
            getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise _missing(symbol, "does not exist") from error
    for function, spec in calls:
        _require_parameters(symbol, function, spec)
    return found


def require(*names: str) -> None:
    """Look symbols up only to check them. Raises Missing."""
    for name in names:
        __getattr__(name)


def require_for(serves: str) -> None:
    """Check all symbols without which this does not work. Raises Missing."""
    require(*(name for name, symbol in SYMBOLS.items() if serves in symbol.serves))


def require_attributes(thing: object, *names: str, serves: str) -> None:
    """Check for attributes that ComfyUI gives an object when creating it. Raises Missing."""
    for name in names:
        if not hasattr(thing, name):
            kind = type(thing)
            raise _missing(Symbol(kind.__module__, f"{kind.__qualname__}.{name}", serves), "does not exist")


def _reach(thing: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        thing = getattr(thing, name)
    return thing


def _require_parameters(symbol: Symbol, function: Callable, spec: str) -> None:
    parameters = inspect.signature(function).parameters
    ordered, _, named = (part.split() for part in spec.partition("*"))
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    lost = [] if takes_any else [name for name in named if name not in parameters]
    if list(parameters)[: len(ordered)] != ordered or lost:
        where = getattr(function, "__name__", symbol.name)
        raise _missing(symbol, f"has changed: {where} takes ({', '.join(parameters)}), expected ({spec})")


def _missing(symbol: Symbol, what: str) -> Missing:
    return Missing(
        f"{symbol} {what} in ComfyUI {_comfyui_version()}: {symbol.serves} will not work; update FramePack or go back to an "
        "earlier ComfyUI"
    )


def _comfyui_version() -> str:
    try:
        return importlib.import_module("comfyui_version").__version__
    except (ImportError, AttributeError):
        return "of unknown version"
