"""A private symbol of ComfyUI that is gone or has changed disables what needs it, with a message, and nothing else."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import comfy.ldm.modules.diffusionmodules.model as decoder_module
import comfy.quant_ops
import comfyui_version
import pytest
import torch

from experiments.benchmarks.decode import hunyuan_vae
from framepack_core.comfyui import log, private
from framepack_core.comfyui.decoding.stream import LINEAR, stream_frames
from framepack_core.comfyui.preview.progress import Progress
from framepack_core.frames import Length
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

ALL = {
    "FramePack_LoadModel",
    "FramePack_LoadLora",
    "FramePack_Cache",
    "FramePack_LoadDemo",
    "FramePack_DemoImage",
    "FramePack_EncodeImage",
    "FramePack_Plan",
    "FramePack_DrawPlan",
    "FramePack_Place",
    "FramePack_Redo",
    "FramePack_Sampler",
    "FramePack_SamplerCustom",
    "FramePack_OneFrame",
    "FramePack_PromptTimeline",
    "FramePack_SetVideoTime",
    "FramePack_UniPC",
    "FramePack_Scheduler",
    "FramePack_Decode",
    "FramePack_SaveVideo",
    "FramePack_MeasureVideo",
}
SAMPLING = {"FramePack_Sampler", "FramePack_SamplerCustom", "FramePack_OneFrame"}
COSTS = {  # the nodes that are lost; any other symbol only costs a part of what a node does
    private.MODELS: {
        "FramePack_LoadModel",
        "FramePack_LoadLora",
        "FramePack_Cache",
        "FramePack_LoadDemo",
        "FramePack_Place",
        "FramePack_Redo",
        *SAMPLING,
    },
    private.SAMPLERS: SAMPLING,
    private.DEMO: {"FramePack_LoadDemo"},
}

# Loads the pack through its entry point, as ComfyUI does: once complete, then once without each symbol.
WITHOUT_EACH = """
import asyncio, importlib, importlib.util, json, logging, sys
comfyui, pack = sys.argv[1:]
sys.path.insert(0, comfyui)
logging.disable(logging.CRITICAL)
from comfy.cli_args import args
args.cpu = True
import server

def nodes():
    for name in [name for name in sys.modules if name == "pack" or name.startswith("pack.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("pack", pack + "/__init__.py", submodule_search_locations=[pack])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack"])
    extension = asyncio.run(sys.modules["pack"].comfy_entrypoint())
    asyncio.run(extension.on_load())
    return [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]

found = {"": nodes()}
for name, symbol in sys.modules["pack.framepack_core.comfyui.private"].SYMBOLS.items():
    owner = importlib.import_module(symbol.module)
    *path, last = symbol.name.split(".")
    for part in path:
        owner = getattr(owner, part)
    kept = getattr(owner, last)
    if not isinstance(owner, type(sys)):
        continue  # a member of an enum cannot be deleted
    delattr(owner, last)
    found[name] = nodes()
    setattr(owner, last, kept)
sys.stdout.write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def nodes_without(comfyui_path) -> dict[str, set[str]]:
    """The ids of the nodes that load without each symbol; "" stands for none."""
    pack = Path(__file__).parents[2]
    command = [sys.executable, "-P", "-c", WITHOUT_EACH, str(comfyui_path), str(pack)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: set(nodes) for name, nodes in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", private.SYMBOLS)
def test_this_comfyui_has_it(name):
    private.require(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", *sorted(private.SYMBOLS.keys() - {"UNENCODED_PREVIEW_IMAGE"})])
def test_without_it_all_nodes_load_that_do_not_need_it(nodes_without, name):
    lost = {node for serves, nodes in COSTS.items() if name and serves in private.SYMBOLS[name].serves for node in nodes}

    assert nodes_without[name] == ALL - lost


def test_what_is_gone_is_named_with_the_version_and_what_it_served(monkeypatch):
    monkeypatch.delattr(decoder_module, "Decoder")

    with pytest.raises(private.Missing) as raised:
        _ = private.Decoder

    assert f"{decoder_module.__name__}.Decoder does not exist in ComfyUI {comfyui_version.__version__}" in str(raised.value)
    assert private.EXACT_DECODING in str(raised.value)


@pytest.mark.parametrize(
    "changed",
    [
        lambda xl, op, chunk, conv_carry_in=None, conv_carry_out=None: None,
        lambda op, xl, conv_carry_in=None, conv_carry_out=None: None,
        lambda xl, op, conv_carry_in=None: None,
    ],
    ids=["an argument put in between", "two changed places", "one gone"],
)
def test_arguments_that_would_shift_are_refused(monkeypatch, changed):
    monkeypatch.setattr(decoder_module, "conv_carry_causal_3d", changed)

    with pytest.raises(private.Missing, match=r"has changed: .* takes \(.*\), expected \(xl op conv_carry_in conv_carry_out\)"):
        private.require("conv_carry_causal_3d")


def test_a_new_argument_at_the_end_is_none_of_our_business(monkeypatch):
    monkeypatch.setattr(decoder_module, "conv_carry_causal_3d", lambda xl, op, conv_carry_in, conv_carry_out, more=None: None)

    private.require("conv_carry_causal_3d")


# What remains of a node


@pytest.fixture
def said(caplog):
    """The log; lines that are only logged once are logged again."""
    log.log_once.cache_clear()
    caplog.set_level(logging.WARNING, "framepack")
    return caplog


def test_decoding_goes_on_in_windows(monkeypatch, said):
    vae = hunyuan_vae(32)
    latents = torch.randn(1, 16, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    windows = torch.cat(list(stream_frames(vae, latents, LINEAR)))
    monkeypatch.delattr(decoder_module, "Decoder")

    found = torch.cat(list(stream_frames(vae, latents)))

    assert torch.equal(found, windows)
    assert "Decoder does not exist" in said.text and "windows of 18 latent frames" in said.text


def test_sampling_goes_on_without_previews(monkeypatch, said):
    monkeypatch.delattr("comfy_execution.progress.get_progress_state")
    timeline = Timeline.of(10, {0: torch.zeros(1, 16, 1, 4, 4)})
    sections = Plan.of(1.2).bind(timeline)

    with Progress(None, sections, [2], timeline, Length(10), 30.0, said.records.append) as progress:
        progress.finish(sections[0], torch.zeros(1, 16, 9, 4, 4))

    assert "get_progress_state does not exist" in said.text


def test_a_gguf_file_is_refused_by_the_symbol_that_it_needs(monkeypatch, tmp_path):
    from framepack_core.comfyui.loading import checkpoints

    monkeypatch.delitem(sys.modules, "framepack_core.comfyui.loading.gguf", raising=False)
    monkeypatch.delattr("framepack_core.comfyui.loading.gguf", raising=False)
    monkeypatch.delattr(comfy.quant_ops, "register_layout_op")

    with pytest.raises(ValueError, match=r"register_layout_op does not exist .* loading GGUF files"):
        checkpoints.load_path(str(tmp_path / "model.gguf"), {})
