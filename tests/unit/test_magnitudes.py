"""MagCache's tables on disk: found by what is in a checkpoint, and refused if they are broken or another's."""

import json
from pathlib import Path

import pytest

from framepack_core.caching import Table
from framepack_core.store import magnitudes

TABLE = Table((1.0, 0.6, 0.2), (1.0, 1.25, 0.8))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(bytes(range(256)) * 4000)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "user" / "__framepack" / "magnitudes"


def kept(folder: Path) -> Path:
    (path,) = folder.glob("*.json")
    return path


def test_a_table_is_found_again_by_what_is_in_the_checkpoint_not_by_its_name_or_time(folder, checkpoint, tmp_path):
    assert magnitudes.read(folder, checkpoint) is None

    magnitudes.write(folder, checkpoint, TABLE)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(checkpoint.read_bytes())

    assert magnitudes.read(folder, checkpoint) == magnitudes.read(folder, copy) == TABLE


def test_measuring_again_replaces_the_table_and_changes_the_state(folder, checkpoint):
    magnitudes.write(folder, checkpoint, TABLE)
    before = magnitudes.state(folder)

    other = Table((1.0, 0.5), (1.0, 2.0))
    magnitudes.write(folder, checkpoint, other)

    assert magnitudes.read(folder, checkpoint) == other
    assert len(before) == 1 and magnitudes.state(folder) != before


def test_other_weights_of_the_same_size_have_no_table_yet(folder, checkpoint):
    magnitudes.write(folder, checkpoint, TABLE)
    weights = bytearray(checkpoint.read_bytes())
    weights[-1] ^= 1
    checkpoint.write_bytes(weights)

    assert magnitudes.read(folder, checkpoint) is None


def test_a_folder_of_shards_is_one_checkpoint(folder, tmp_path):
    shards = tmp_path / "model"
    shards.mkdir()
    for number in range(2):
        (shards / f"{number}.safetensors").write_bytes(bytes([number]) * 100)
    magnitudes.write(folder, shards, TABLE)
    found = magnitudes.read(folder, shards)

    (shards / "1.safetensors").write_bytes(b"x" * 100)

    assert found == TABLE and magnitudes.read(folder, shards) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"weights": "w"}',
        '{"weights": "w", "ratios": [1]}',
        '{"weights": "w", "levels": [1], "ratios": 3}',
        '{"weights": "w", "levels": [1], "ratios": ["a"]}',
    ],
)
def test_a_broken_file_is_named(folder, checkpoint, content):
    magnitudes.write(folder, checkpoint, TABLE)
    kept(folder).write_text(content)

    with pytest.raises(ValueError, match=r"\w+\.json is no table of magnitudes .* delete the file and measure"):
        magnitudes.read(folder, checkpoint)


@pytest.mark.parametrize("ratios", [[], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_ratios_that_no_magnitudes_have_are_refused(folder, checkpoint, ratios):
    magnitudes.write(folder, checkpoint, TABLE)
    kept(folder).write_text(json.dumps(json.loads(kept(folder).read_text()) | {"ratios": ratios}))

    with pytest.raises(ValueError, match=r"has ratios that are no positive numbers; delete the file"):
        magnitudes.read(folder, checkpoint)


@pytest.mark.parametrize("levels", [[1, 0.5], [1, 0.2, 0.6], [1, 0.5, 0], [1, 0.5, float("nan")]])
def test_levels_that_no_schedule_has_are_refused(folder, checkpoint, levels):
    magnitudes.write(folder, checkpoint, TABLE)
    kept(folder).write_text(json.dumps(json.loads(kept(folder).read_text()) | {"levels": levels}))

    with pytest.raises(ValueError, match=r"has noise levels that do not go down, or not one for each ratio; delete the file"):
        magnitudes.read(folder, checkpoint)


def test_a_file_of_another_checkpoint_is_refused(folder, checkpoint, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    magnitudes.write(folder, checkpoint, TABLE)
    content, path = kept(folder).read_text(), kept(folder)
    path.unlink()
    magnitudes.write(folder, other, TABLE)
    kept(folder).write_text(content)

    with pytest.raises(ValueError, match=r"was measured with mine\.safetensors, not with other\.safetensors; delete the file"):
        magnitudes.read(folder, other)
