"""Safetensors files read tensor by tensor are what the safetensors package reads."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from framepack_core.weights.stored import DTYPES, map_tensors, read_tensor, read_tensors

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="maps pages as only Linux does")


@pytest.fixture
def path(tmp_path) -> Path:
    """A tensor of each type, an empty one and a number, some of them at odd places."""
    tensors = {code: torch.arange(6).reshape(2, 3).to(dtype) for code, dtype in DTYPES.items()}
    tensors |= {"empty": torch.empty(0, 3), "number": torch.tensor(2.5), "a": torch.tensor([1], dtype=torch.uint8)}
    save_file(tensors, tmp_path / "all.safetensors", {"framepack.layouts": "f1"})
    return tmp_path / "all.safetensors"


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    as_bytes = (tensor.reshape(-1).view(torch.uint8) for tensor in (found, expected))
    return found.dtype == expected.dtype and found.shape == expected.shape and torch.equal(*as_bytes)


def test_tensors_and_text_are_read(path):
    expected = load_file(path)

    tensors, metadata = read_tensors(path)

    assert metadata == {"framepack.layouts": "f1"}
    assert tensors.keys() == expected.keys()
    assert all(same(read_tensor(path, stored), expected[name]) for name, stored in tensors.items())


@ON_LINUX
def test_mapped_tensors_are_the_same_and_writing_to_them_leaves_the_file_as_it_is(path):
    expected, before = load_file(path), path.read_bytes()

    mapped, metadata = map_tensors(path)

    assert metadata == {"framepack.layouts": "f1"}
    assert all(same(mapped[name], tensor) for name, tensor in expected.items())
    mapped["F32"].add_(1)
    assert torch.equal(mapped["F32"], expected["F32"] + 1) and path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: b"",
        lambda data: b"\xff" * 100,
        lambda data: data.replace(b"data_offsets", b"data_positon", 1),
        lambda data: data.replace(b'"shape":[2,3]', b'"shape":[2,4]', 1),
    ],
    ids=["cut", "cut in the header", "empty", "something else", "no offsets", "wrong shape"],
)
def test_a_damaged_file_is_refused(path, damage):
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ValueError, match=r"all.safetensors cannot be read: it .*; download it again"):
        read_tensors(path)


def test_an_unknown_type_is_named(path):
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F64"', b'"dtype":"F65"'))

    with pytest.raises(ValueError, match=r"F64 is in F65; the types that can be read are F64, F32"):
        read_tensors(path)
