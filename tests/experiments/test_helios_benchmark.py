"""The benchmark of Helios against Wan, on a tiny size. The figures mean nothing here."""

import torch

from experiments.benchmarks.helios import SIZES, Size, compare, pair, staged

TINY = Size(8, 8, 128, 1)
CPU = torch.device("cpu")


def test_both_sides_have_as_many_tokens_and_those_of_a_full_history():
    ours, theirs, tokens = pair(TINY, CPU)

    assert ours().shape == (1, 16, 9, 8, 8)
    assert theirs().shape == (1, 16, tokens, 2, 2)
    assert tokens == (9 + 1 + 1) * 4 * 4 + 1 * 2 * 2 + 4 * 1 * 1  # generated and short, mid, long


def test_a_stage_has_fewer_tokens_and_the_same_history():
    size = SIZES[-1]
    whole = Size(size.height, size.width, size.dim, size.layers)

    found, expected = (staged(one, (44, 42, 42)) for one in (size, whole))

    assert found.tokens == expected.tokens
    assert found.size == (9, size.height // 4, size.width // 4) and expected.size == (9, size.height // 2, size.width // 2)


def test_it_prints_a_ratio_for_each_size(capsys):
    compare(1, [TINY, Size(16, 16, 128, 1, halved=1)], CPU)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["size", "Helios/Wan", "Helios", "Wan"]
    assert [line.split("wide")[0].strip() for line in lines[1:3]] == ["184 tokens, 128", "304 tokens, 128"]
    assert lines[3].startswith("  geometric mean ")
