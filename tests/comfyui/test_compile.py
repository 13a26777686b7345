"""torch.compile, as ComfyUI's own node applies it."""

import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from support import given, helios
from support.ours import relative_error, sample
from torch._dynamo.utils import counters

from framepack_core.comfyui.loading import checkpoints


def test_one_graph_serves_all_sections(checkpoint):
    """Sections differ in indices and content, which are tensors, so nothing is compiled again and nothing breaks the graph."""
    model = checkpoints.load_path(str(checkpoint), {})
    inputs = given.inputs(8, 8)
    expected = sample(model, inputs, sections=3, steps=2)
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="aot_eager")
    torch._dynamo.reset()
    counters.clear()

    found = sample(compiled, inputs, sections=3, steps=2)

    assert relative_error(found, expected) < 1e-5
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.slow
def test_one_graph_serves_all_sections_of_a_stage_of_helios(tmp_path):
    model = checkpoints.load_path(helios.write_helios(tmp_path), {})
    chunks = [(helios.seen(8, 12, given=given), helios.call(4, 6)) for given in (9, 19, 28)]
    expected = [helios.run_ours(model.model.diffusion_model, given, context) for context, given in chunks]
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model.model.diffusion_model, backend="aot_eager")

    found = [helios.run_ours(compiled, given, context) for context, given in chunks]

    assert all(relative_error(*pair) < 1e-5 for pair in zip(found, expected, strict=True))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
