"""What the user has set in ComfyUI's front end."""

import folder_paths
import pytest

from framepack_core.comfyui.settings import is_light


@pytest.mark.parametrize(
    ("content", "light"),
    [
        ('{"Comfy.ColorPalette": "light"}', True),
        ('{"Comfy.ColorPalette": "nord"}', False),
        ("{}", False),
        ("[]", False),
        ("not JSON", False),
        (None, False),
    ],
)
def test_a_plan_is_drawn_in_the_colours_of_the_theme(content, light, tmp_path, monkeypatch):
    """Dark ones if nothing is set, or it cannot be read."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    if content is not None:
        (tmp_path / "default").mkdir()
        (tmp_path / "default" / "comfy.settings.json").write_text(content, encoding="utf-8")

    assert is_light() == light
