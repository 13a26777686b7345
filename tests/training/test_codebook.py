"""The codebook command."""

import argparse

import pytest
import torch

from framepack_core.training import codebook
from framepack_core.training.cache import Clip, ClipCache, write_clip
from framepack_core.training.history import CachedLatents, Codebook


@pytest.fixture
def cache(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        latents = torch.randn(16, 2, 4, 4, generator=generator)
        write_clip(tmp_path, f"clip-{index}", Clip(latents, torch.zeros(1, 8), torch.zeros(8), None, ""))
    return tmp_path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    codebook.add_arguments(parser)
    return codebook.run(parser.parse_args([str(word) for word in words]))


def test_the_codebook_is_fitted_and_lies_in_the_cache(cache):
    assert run(cache, "--centres", 9, "--seed", 3) == 0

    expected = Codebook.fit(CachedLatents(ClipCache(cache)), 9, torch.Generator().manual_seed(3))
    assert torch.equal(Codebook.load(cache / "codebook.safetensors").centres_KC, expected.centres_KC)
    assert len(ClipCache(cache)) == 3


def test_it_may_lie_elsewhere(cache, tmp_path):
    assert run(cache, "--centres", 2, "--out", tmp_path / "other" / "book.safetensors") == 0

    assert Codebook.load(tmp_path / "other" / "book.safetensors").centres_KC.shape == (2, 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--centres", 97], "96 different latent pixels are too few for 97 centres"),
        (["--centres", 0], "centres 0, pixels 1000000: choose 1 <= centres <= pixels"),
        (["--pixels", 5], "centres 128, pixels 5"),
    ],
)
def test_what_cannot_be_fitted_is_said(cache, caplog, words, message):
    assert run(cache, *words) == 1

    assert message in caplog.text
    assert not (cache / "codebook.safetensors").exists()


def test_a_folder_without_clips_is_said(tmp_path, caplog):
    assert run(tmp_path / "nowhere") == 1

    assert "nowhere holds no clips" in caplog.text
