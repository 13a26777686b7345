"""Quantised checkpoints in a real ComfyUI: listed, loaded, run through the whole graph, close to the full-precision video."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.graph import Graph, own_models
from support.stand_ins.prompt import INVERTED

from scripts.support.quantising.convert import convert
from scripts.support.quantising.to_gguf import write_gguf
from scripts.support.server import Server

BOUNDS = {"int8_tensorwise.safetensors": 0.1, "nvfp4.safetensors": 0.7, "Q8_0.gguf": 0.1}


@pytest.fixture
def quantised(server: Server, models_directory: Path) -> Iterator[Path]:
    """One of the server's folders, with the stand-in transformer in three formats."""
    source = models_directory / "diffusion_models" / INVERTED
    with own_models(server) as folder:
        for format in ("int8_tensorwise", "nvfp4"):
            convert(source, folder / f"{format}.safetensors", format)
        write_gguf(folder / "Q8_0.gguf", load_file(source), "Q8_0")
        yield folder


def test_packed_files_run_through_the_whole_graph(quantised, server, start_image):
    graph = Graph(start_image)
    expected = graph.latents(server, graph.sampler())

    for name, bound in BOUNDS.items():
        model = graph.add("FramePack_LoadModel", model_name=f"{quantised.name}/{name}", weight_dtype="default")
        found = graph.latents(server, graph.sampler(model=model))
        assert 1e-4 < difference(found, expected) < bound, name


def test_core_s_loader_reads_what_the_script_writes(quantised, server, start_image):
    graph = Graph(start_image)
    ours = graph.add("FramePack_LoadModel", model_name=f"{quantised.name}/nvfp4.safetensors", weight_dtype="default")
    core = graph.add("UNETLoader", unet_name=f"{quantised.name}/nvfp4.safetensors", weight_dtype="default")

    found, expected = (graph.latents(server, graph.sampler(model=model)) for model in (core, ours))

    assert torch.equal(found, expected)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()
