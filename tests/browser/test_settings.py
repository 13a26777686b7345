"""The pack's settings in ComfyUI's own front end."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("setting", "default"), [("FramePack.CheckpointGB", 10), ("FramePack.CheckpointDays", 30)])
def test_how_much_is_kept_is_a_setting_in_the_file_that_the_sampler_reads(page, server, setting, default):
    assert page.evaluate(f"app.extensionManager.setting.get('{setting}')") == default

    page.evaluate(f"app.extensionManager.setting.set('{setting}', {default + 1})")

    kept = json.loads((server.base / "user" / "default" / "comfy.settings.json").read_text(encoding="utf-8"))
    assert kept[setting] == default + 1
    server.set_setting(setting, default)
