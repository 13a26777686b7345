"""A digest names data by its content, the same in every process and in every version of the pack."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.filling import ContextGroup, Section
from framepack_core.helios import solver as helios
from framepack_core.plan import Plan
from framepack_core.solver import sample_unipc
from framepack_core.store.digest import NAMES, digest
from framepack_core.store.identity import Identity
from framepack_core.store.kept import Run, section_keys

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def canonical(value) -> str:
    """Tells apart values that `==` does not: 1, 1.0 and True; 0.0 and -0.0."""
    if isinstance(value, dict):
        return f"dict {sorted((key, canonical(item)) for key, item in value.items())}"
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    return repr(value)


@given(plain, plain)
def test_data_has_one_digest_and_other_data_another(one, other):
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


@pytest.mark.parametrize(
    "other",
    [
        torch.tensor([[1.0, 2.0], [3.0, 5.0]]),
        torch.tensor([1.0, 2.0, 3.0, 4.0]),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(torch.int32),
        [[1.0, 2.0], [3.0, 4.0]],
    ],
    ids=["values", "shape", "precision", "type", "no tensor"],
)
def test_tensors_count_by_values_shape_and_precision(other):
    tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    assert digest(tensor) == digest(tensor.t().contiguous().t()) != digest(other)


def test_a_digest_is_the_same_in_every_process_and_version():
    """The expected values are those of 0.1.0's first files: with others, all users would lose their kept sections."""
    sections = Plan.of(2.4).fill(19)
    value = {
        "b": [1, 2.5, None],
        "a": {"text": b"bytes"},
        "tensor": torch.arange(3.0),
        "function": sample_unipc,
        "sections": sections,
    }

    assert digest(value) == digest(dict(reversed(value.items())))
    assert digest(value) == "e496040cd50098ad136c887ab04959e6fc090557db58e6b2754640ee33e918fe"
    assert section_keys("identity", sections, [torch.tensor([1.0, 0.5, 0.0])] * 2) == (
        "409701c278cbe2971ddd3167fbffd4ef6016a24df515a708f52b190eddaf5b2f",
        "91e843a9225f94e3b2082d2c28f2e00889aa7aa531c66a67c67fbd9ce0dd2d9d",
    )


def test_a_run_is_named_after_the_digest_of_its_parts_as_in_the_first_version():
    parts = {"origin": "a", "versions": {"torch": "2"}, "known": {0: torch.arange(3.0)}, "guider": (sample_unipc, [1.0])}

    assert Identity.of(parts).name == digest(parts)


def test_things_of_this_pack_have_names_that_do_not_follow_the_code():
    assert {
        ContextGroup: "plan.ContextGroup",
        Section: "plan.Section",
        sample_unipc: "solver.sample_unipc",
        helios.sample_unipc: "helios.solver.sample_unipc",
        helios.sample_dmd: "helios.solver.sample_dmd",
    } == NAMES
    with pytest.raises(TypeError, match="Run has no lasting name"):
        digest(Run)
