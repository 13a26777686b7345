"""The name of a saved video: what is filled in, and what is refused before anything is sampled."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from framepack_core.media.names import check_prefix, fill_in

NOW = datetime(2026, 3, 7, 9, 5, 2)
OUTPUT = Path("output").resolve()
PROMPT: dict[str, Any] = {
    "1": {"class_type": "CLIPTextEncode", "_meta": {"title": "Prompt"}, "inputs": {"text": "up/down?", "clip": ["2", 1]}},
    "3": {"class_type": "FramePack_Sampler", "inputs": {"seed": 42, "model": ["2", 0]}},
}


@pytest.mark.parametrize(
    ("prefix", "filled"),
    [
        ("video/FramePack", "video/FramePack"),
        ("%date:yyyy-MM-dd%/a", "2026-03-07/a"),
        ("%date:yy.M.d% %date:hhmmss%", "26.3.7 090502"),
        ("%date:h-m-s%", "9-5-2"),
        ("%FramePack_Sampler.seed%", "42"),
        ("%Prompt.text%", "up_down_"),
    ],
)
def test_dates_and_widgets_are_filled_in_as_in_the_front_end(prefix, filled):
    assert fill_in(prefix, PROMPT, NOW) == filled


@pytest.mark.parametrize("token", ["%year%", "%width%", "%Nobody.seed%", "%Prompt.colour%", "%Prompt.clip%", "100% sure"])
def test_what_is_no_widget_with_a_value_stays(token):
    assert fill_in(token, PROMPT, NOW) == token


@pytest.mark.parametrize("prefix", ["a:b", "%date:hh:mm%", "what?", "a|b/c"])
def test_windows_refuses_names_that_it_cannot_write(prefix):
    check_prefix(prefix, OUTPUT, windows=False)

    with pytest.raises(ValueError, match="Windows has no file names with"):
        check_prefix(prefix, OUTPUT, windows=True)


@pytest.mark.parametrize("prefix", ["video/FramePack", "%date:yyyy-MM-dd%/x", "%Step 1: sample.seed%", "", str(OUTPUT / "x")])
def test_windows_takes_dates_tokens_and_drives(prefix):
    check_prefix(prefix, OUTPUT, windows=True)


@pytest.mark.parametrize("prefix", ["../x", "video/../../x", str(OUTPUT.parent / "x")])
def test_a_path_out_of_the_output_folder_is_refused(prefix):
    with pytest.raises(ValueError, match="leads out of the output folder; write a path within it"):
        check_prefix(prefix, OUTPUT)
