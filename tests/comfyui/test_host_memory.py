"""How much of the computer's memory loading takes besides the file's own pages, at a third of the released width."""

import os
import re
import subprocess
import sys

import pytest

from scripts.support.environment import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]

NOISE = 60e6  # bytes
AS_IT_IS = ("ComfyUI's names, bf16, dynamic", "ComfyUI's names, bf16, mapped", "ComfyUI's names, fp8, mapped")
JOINED = ("official names, bf16, dynamic", "official names, bf16, shards, mapped")
CLASSIC = "official names, bf16, classic"
CAST = "ComfyUI's names, bf16, weight_dtype fp8, dynamic"


@pytest.fixture(scope="module")
def shares() -> dict[str, float]:
    """The peak of a load in anonymous memory, as a share of the file's size."""
    only = "|".join(f"^{re.escape(row)}$" for row in (*AS_IT_IS, *JOINED, CLASSIC, CAST))
    command = [sys.executable, "-m", "experiments.benchmarks.load", os.environ["FRAMEPACK_COMFYUI"], "--width", "1024",
               "--depth", "4", "8", "--only", only]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()[2:]]
    return {
        f"{label}, {patcher}": (max(map(float, costs)) * 1e9 - NOISE) / (float(size) * 1e9)
        for label, patcher, size, *costs in rows
    }


@pytest.mark.parametrize("row", AS_IT_IS)
def test_a_file_in_comfyui_s_names_is_not_copied(shares, row):
    assert shares[row] < 0.05


@pytest.mark.parametrize("row", JOINED)
def test_a_file_in_official_names_costs_only_what_is_joined(shares, row):
    assert 0.2 < shares[row] < 0.4


def test_what_is_joined_is_not_kept_twice_by_the_classic_patcher(shares):
    assert shares[CLASSIC] < 1.12


def test_with_dynamic_vram_a_weight_dtype_costs_no_copies(shares):
    assert shares[CAST] < 0.05
