"""What ComfyUI knows about the pack's nodes: names are permanent, and everything is explained."""

import pytest

from scripts.support.environment import ROOT
from scripts.support.server import Json, Server

# id: required inputs, optional inputs (in order, with defaults), outputs
NODES = {
    "FramePack_LoadModel": ("model_name weight_dtype=default", "variant=auto", "MODEL"),
    "FramePack_LoadLora": ("model lora_name strength=1.0", "", "MODEL matched"),
    "FramePack_Cache": ("model method=easycache threshold=0.02 start=0.1 end=1.0 max_skips=5", "", "MODEL"),
    "FramePack_LoadDemo": ("", "", "MODEL CLIP VAE CLIP_VISION"),
    "FramePack_DemoImage": ("seed=0", "", "image prompt"),
    "FramePack_EncodeImage": ("image vae base_resolution=640", "clip_vision", "latent clip_vision_output image"),
    "FramePack_Plan": (
        "seconds=5.0 order=inverted window=9 layout=auto fps=30.0",
        "custom_layout= paddings=released exact_length=False loop=0 parts=prompts reanchor=False model",
        "plan table",
    ),
    "FramePack_DrawPlan": ("plan width=640 height=608", "frames start_image=True", "image table"),
    "FramePack_Sampler": (
        "model positive plan seed=0 steps=25 cfg=1.0 guidance=10.0 shift=0.0 sampler=auto",
        "negative start_latent end_latent clip_vision_output preview_vae resume=True on_cancel=discard frames latent_image "
        "end_strength=1.0 colour_anchor=0.0 denoise=1.0",
        "latent",
    ),
    "FramePack_SamplerCustom": (
        "guider sampler sigmas plan seed=0",
        "start_latent end_latent clip_vision_output preview_vae resume=True on_cancel=discard frames latent_image "
        "end_strength=1.0 colour_anchor=0.0",
        "latent",
    ),
    "FramePack_Place": (
        "images vae at=start seconds=0.0 use=fixed",
        "clip_vision frames base_resolution=640 fps=30.0 plan mask times=",
        "frames images",
    ),
    "FramePack_Redo": ("latent plan sections=1", "", "plan frames"),
    "FramePack_OneFrame": (
        "model positive target_index=9 history=full seed=0 steps=25 cfg=1.0 guidance=10.0 shift=0.0 sampler=auto",
        "negative frames clip_vision_output control_index=",
        "latent",
    ),
    "FramePack_PromptTimeline": ("clip text=", "plan", "conditioning table"),
    "FramePack_SetVideoTime": ("conditioning start=0.0 end=0.0", "fade=0.0", "conditioning"),
    "FramePack_UniPC": ("variant=bh1", "", "SAMPLER"),
    "FramePack_Scheduler": ("steps=25 shift=0.0 latent window=9", "", "SIGMAS"),
    "FramePack_Decode": ("latent vae", "", "images"),
    "FramePack_SaveVideo": (
        "latent vae fps=30.0 filename_prefix=video/FramePack crf=16",
        "pixel_format=yuv420p audio png_frames=False blending=exact attention_frames=96 before after crossfade=8 "
        "container=auto codec=auto mark_as_ai=True",
        "video",
    ),
    "FramePack_MeasureVideo": ("latent_window=9", "images video fps=30.0", "table plot"),
}
CHOICES = {
    ("FramePack_LoadModel", "weight_dtype"): ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"],
    ("FramePack_LoadModel", "variant"): ["auto", "base", "mid", "distilled"],
    ("FramePack_Plan", "order"): ["inverted", "forward", "endpoints"],
    ("FramePack_Plan", "layout"): [
        *("auto", "framepack", "f1", "vanilla", "endpoints", "geometric", "duplicated", "temporal", "important-start"),
        *("symmetric", "custom"),
    ],
    ("FramePack_Plan", "paddings"): ["released", "exact"],
    ("FramePack_Place", "at"): ["start", "end", "time"],
    ("FramePack_Place", "use"): ["fixed", "guide"],
    ("FramePack_Sampler", "on_cancel"): ["discard", "return finished part"],
    ("FramePack_OneFrame", "history"): [
        *("full", "no 4x", "no 2x 4x", "none", "no 2x", "no post", "no post 2x", "no post 4x"),
    ],
    ("FramePack_SaveVideo", "pixel_format"): ["yuv420p", "yuv444p", "yuv420p10le"],
    ("FramePack_SaveVideo", "blending"): ["exact", "linear"],
    ("FramePack_SaveVideo", "container"): ["auto", "mp4", "webm", "mkv", "mov"],
    ("FramePack_SaveVideo", "codec"): ["auto", "h264", "vp9", "av1", "prores"],
    ("FramePack_UniPC", "variant"): ["bh1", "bh2"],
}


@pytest.fixture(scope="module")
def object_info(server: Server) -> Json:
    return server.object_info()


def test_the_pack_has_exactly_these_nodes(object_info):
    ours = {name for name, node in object_info.items() if node["python_module"] == "custom_nodes.framepack"}

    assert ours == set(NODES)
    assert ours == {name for name in object_info if name.startswith("FramePack_")}


@pytest.mark.parametrize("node", NODES)
def test_inputs_outputs_and_defaults(object_info, node):
    info = object_info[node]

    assert (spelled(info, "required"), spelled(info, "optional"), " ".join(info["output_name"])) == NODES[node]


@pytest.mark.parametrize(("node", "name"), CHOICES)
def test_choices(object_info, node, name):
    assert choices(object_info, node, name) == CHOICES[node, name]


def test_the_samplers_offer_unipc_and_all_of_comfyui_s_samplers(object_info):
    framepack, helios = ["auto", "unipc_bh1", "unipc_bh2"], ["unipc", "dmd"]
    comfyui = choices(object_info, "KSamplerSelect", "sampler_name")

    assert choices(object_info, "FramePack_Sampler", "sampler") == [*framepack, *helios, *comfyui]
    assert choices(object_info, "FramePack_OneFrame", "sampler") == [*framepack, *comfyui]


def test_the_loader_lists_files_and_sharded_folders_but_no_single_shards(object_info):
    models = choices(object_info, "FramePack_LoadModel", "model_name")

    assert {"FramePackI2V_stand_in.safetensors", "FramePackI2V_sharded/"} <= set(models)
    assert not any("-of-" in model for model in models)


@pytest.mark.parametrize("node", NODES)
def test_every_input_and_output_has_a_tooltip(object_info, node):
    info = object_info[node]

    silent = [name for name, (_, options) in inputs(info).items() if not options.get("tooltip")]
    assert not silent
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


@pytest.mark.parametrize("node", NODES)
def test_a_node_can_be_found_and_understood(object_info, node):
    info = object_info[node]

    assert info["search_aliases"]
    assert info["description"]
    assert info["category"].startswith("FramePack/")
    assert "FramePack" in info["display_name"]
    assert (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8").startswith("# ")


def inputs(info: Json) -> dict[str, list]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def spelled(info: Json, group: str) -> str:
    """`name=default`, or `name` if there is no default."""
    named = ((name, info["input"][group][name][1]) for name in info["input_order"].get(group, []))
    return " ".join(f"{name}={options['default']}" if "default" in options else name for name, options in named)


def choices(object_info: Json, node: str, name: str) -> list[str]:
    kind, *rest = inputs(object_info[node])[name]
    return kind if isinstance(kind, list) else rest[0]["options"]
