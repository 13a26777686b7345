"""The doctor's judgement of a computer, what it expects, and a report that says of nobody whose computer it is."""

import math
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from scripts.support.doctor import expectation, machine, privacy, report
from scripts.support.doctor.findings import Chapter, Finding, look
from scripts.support.doctor.machine import Card, Driver, Torch

GPU = Card("Some card", total=24e9, free=23e9, capability="8.9", bf16=True, fp8=True, nvfp4=False, dynamic=True)
SIZES = {"bf16": 25.7e9, "fp8 file": 16.3e9, "int8_tensorwise": 13.3e9, "nvfp4": 8.9e9, "GGUF Q4_K": 8.6e9}


def statuses(findings) -> list[str]:
    return [finding.status for finding in findings]


# Findings


def test_a_check_that_fails_becomes_a_finding_with_its_error():
    def broken():
        yield Finding("before", "lost with the rest")
        raise RuntimeError("no such thing")

    (found,) = look("a thing", broken)

    assert (found.what, found.status) == ("a thing", "warning")
    assert "RuntimeError: no such thing" in found.value


def test_a_check_that_ends_the_program_becomes_a_finding_too():
    def ends():
        raise SystemExit(2)

    assert statuses(look("a thing", ends)) == ["warning"]


def test_a_check_may_find_one_thing_or_several():
    one = Finding("a", "b")

    assert look("x", lambda: one) == [one]
    assert look("x", lambda: iter([one, one])) == [one, one]


# The computer


@pytest.mark.parametrize(
    ("torch", "drivers", "status", "remedy"),
    [
        (Torch("2.11.0+cu130", "13.0", None, ("A card",)), [Driver("A card", "580", 1, 0)], "ok", ""),
        (Torch("2.11.0+cpu", None, None), [], "ok", ""),
        (Torch("2.11.0+cpu", None, None), [Driver("A card", "580", 1, 0)], "fault", "install a CUDA build"),
        (Torch("2.11.0+cu130", "13.0", None), [Driver("A card", "535", 1, 0)], "fault", "supports CUDA 13.0"),
        ("ImportError: no DLL", [], "fault", "install torch again"),
    ],
)
def test_a_torch_that_does_not_see_the_card_is_a_fault(torch, drivers, status, remedy):
    found = machine.torch_build(torch, drivers)

    assert found.status == status
    assert remedy in found.remedy


def test_memory_that_nvidia_smi_does_not_know_is_not_a_number():
    assert machine.mebibytes("1024") == 2**30
    assert math.isnan(machine.mebibytes("[N/A]"))


def test_a_card_that_others_use_and_one_without_bf16_are_warned_of():
    assert statuses(machine.graphics_card(GPU)) == ["ok"] * 4
    assert machine.card_memory(replace(GPU, free=10e9)).status == "warning"
    assert "float32" in machine.precision(replace(GPU, bf16=False)).remedy


def test_without_a_card_it_says_what_runs_all_the_same():
    (found,) = machine.graphics_card(None)

    assert found.status == "warning"
    assert "scripts/demo.py" in found.remedy


def test_a_folder_that_is_not_there_yet_has_the_disk_of_its_parent(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "LITTLE_DISK", 0)
    (enough,) = machine.disks({"output": tmp_path / "not" / "there"})
    monkeypatch.setattr(machine, "LITTLE_DISK", math.inf)
    (little,) = machine.disks({"output": tmp_path})

    assert enough.status == "ok"
    assert little.status == "warning"


# What to expect


@pytest.mark.parametrize(
    ("room", "ram", "format"),
    [
        (30e9, 64e9, "bf16"),
        (20e9, 64e9, "fp8 file"),
        (20e9, 23e9, "int8_tensorwise"),  # the fp8 file does not fit into RAM
        (9e9, 64e9, "GGUF Q4_K"),
        (4e9, 64e9, "fp8 file"),  # nothing stays on the card: what the example workflow takes
        (4e9, 8e9, "GGUF Q4_K"),
    ],
)
def test_the_file_to_take_is_the_most_accurate_that_stays_on_the_card(room, ram, format):
    assert expectation.choose(GPU, ram, SIZES, room).format == format


def test_a_card_that_computes_in_4_bits_gets_the_format_for_it():
    assert expectation.choose(replace(GPU, nvfp4=True), 64e9, SIZES, 9e9).format == "nvfp4"


def test_what_does_not_stay_on_the_card_is_named_with_its_time():
    found = expectation.choose(GPU, 64e9, SIZES, 4.3e9)

    assert "12.0 GB" in found.why
    assert f"{12e9 / expectation.LINK:.1f} s" in found.why


def test_times_count_the_sections_of_each_length():
    section, first, *_, minute = expectation.times(step=4.0, decode=8.0)

    assert section.value.startswith("2 min")  # 25 x 4 s + 8 s = 108 s
    assert first.value == "2 min, 1 sections"
    assert minute.value == "1 h 30 min, 50 sections"  # 50 x 108 s


@pytest.mark.parametrize(("seconds", "text"), [(3.14, "3.1 s"), (99.9, "99.9 s"), (100, "2 min"), (3590, "1 h 00 min")])
def test_a_duration_is_given_in_fitting_units(seconds, text):
    assert expectation.duration(seconds) == text


# The report

HOME = Path.home()


def cleaned(text: str) -> str:
    places = {"/data/jane/ComfyUI/custom_nodes/framepack": "framepack", "/data/jane/ComfyUI": "ComfyUI", "/home/jane": "~"}
    return privacy.without_personal_paths(text, places, {"jane": "<user>", "janes-tower": "<computer>"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in /data/jane/ComfyUI/output", "in ComfyUI/output"),
        ("/home/jane/models/a.safetensors", "~/models/a.safetensors"),
        ("File '/mnt/acme project/x/my file.py', line 3", "File '.../my file.py', line 3"),
        ('no "C:\\acme project\\out\\", sorry', 'no ".../out", sorry'),
        ("/srv/clients/acme/weights.gguf is cut off", ".../weights.gguf is cut off"),
        (r"C:\Users\Jane Doe\x and D:\work\acme\y.txt", None),
        ("hello Jane on janes-tower", "hello <user> on <computer>"),
        ("janet stays", "janet stays"),
        ("see https://example.org/a/b/c and 3/4/5", "see https://example.org/a/b/c and 3/4/5"),
        ("docs/memory.md, models/vae/x.safetensors", "docs/memory.md, models/vae/x.safetensors"),
    ],
)
def test_paths_and_names_that_say_whose_computer_it_is_are_taken_out(text, expected):
    found = cleaned(text)

    assert "jane" not in found.replace("janet", "").lower()
    assert "acme" not in found
    if expected is not None:
        assert found == expected


def test_deeper_folders_are_replaced_before_those_around_them(tmp_path):
    comfyui = tmp_path / "ComfyUI"
    pack = comfyui / "custom_nodes" / "framepack"
    pack.mkdir(parents=True)

    places = privacy.known_places(comfyui, pack)

    assert list(places) == sorted(places, key=len, reverse=True)
    assert privacy.without_personal_paths(f"{pack}/nodes", places, {}) == "ComfyUI/custom_nodes/framepack/nodes"
    assert privacy.without_personal_paths(f"{HOME}/x", places, {}) in ("~/x", f"{HOME}/x".replace(str(HOME), "."))


def test_a_report_begins_with_what_to_do_the_faults_first():
    chapters = [
        Chapter("One", (Finding("a", "fine"), Finding("b", "odd", "warning", "look at it"))),
        Chapter("Two", (Finding("c|d", "two\nlines", "fault", "mend it"),)),
    ]

    text = report.markdown(chapters, "1.2.3", date(2026, 1, 2))

    assert "FramePack 1.2.3, `scripts/doctor.py`, 2026-01-02: 1 fault, 1 warning." in text
    assert text.index("c|d: two lines") < text.index("b: odd") < text.index("## One") < text.index("## Two")
    assert "| c\\|d | two lines | **fault** | mend it |" in text
    assert report.verdict([Finding("a", "fine")]) == "nothing is wrong"


def test_the_screen_marks_what_is_wrong():
    lines = report.lines(Chapter("One", (Finding("a", "fine"), Finding("b", "broken", "fault", "mend it"))))

    assert lines == ["", "One", "    a: fine", "  ! b: broken", "      mend it"]
