"""Measures of a video react to what they are named after, and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from framepack_core.demo.world import Scene
from framepack_core.drawing.palette import LIGHT
from framepack_core.measures import series as measuring
from framepack_core.measures.looks import LOOKS, to_lab
from framepack_core.measures.plot import panels, plot
from framepack_core.measures.report import Report
from framepack_core.measures.sections import Sections
from framepack_core.measures.series import Series, slopes

STILL = Scene.draw(4_000_001, shapes=1).with_motion("stop")


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    return STILL.render(40)


def faded(frames: np.ndarray, change) -> np.ndarray:
    """`change(frame, share)` with a share that grows from 0 to 1 along the video."""
    shares = np.linspace(0, 1, len(frames))
    changed = [change(frame.astype(float), share) for frame, share in zip(frames, shares, strict=True)]
    return np.clip(np.stack(changed), 0, 255).astype(np.uint8)


def softer(frame: np.ndarray, share: float) -> np.ndarray:
    around = sum(np.roll(frame, (y, x), axis=(0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)) / 9
    return frame * (1 - share) + around * share


def noisy(frames: np.ndarray) -> np.ndarray:
    """With a change from each frame to the next, as any film has."""
    return np.clip(frames + np.random.default_rng(0).normal(0, 2, frames.shape), 0, 255).astype(np.uint8)


# Single frames and their change


def test_a_still_video_has_neither_drift_nor_motion(still):
    series = Series.of(still)

    assert series.drift() == dict.fromkeys(LOOKS, 0.0)
    assert series.motion == series.flow == 0.0
    assert (series.frames, series.width, series.height) == (40, 128, 128)


def test_a_colour_cast_moves_lab_and_hsv_and_leaves_sharpness(still):
    found = Series.of(faded(still, lambda frame, share: frame + share * np.array([12, 0, -12]))).drift()

    assert found["lab_mean"] > 4 and found["hsv"] > 0.1
    assert found["laplacian"] < 0.05 * float(Series.of(still).ends("laplacian")[0])


def test_blur_lowers_sharpness_and_fine_detail(still):
    series = Series.of(faded(still, softer))
    before, after = series.ends("laplacian")

    assert after < before / 2
    assert series.ends("high_frequency")[1] < series.ends("high_frequency")[0]
    assert series.drift()["laplacian"] == pytest.approx(float(before - after))
    assert series.drift()["lab_mean"] < 0.5


def test_fading_lowers_contrast(still):
    mean = still.mean()

    found = Series.of(faded(still, lambda frame, share: mean + (frame - mean) * (1 - share / 2))).drift()

    assert found["contrast"] > 0.3 * float(Series.of(still).ends("contrast")[0])


def test_the_middle_of_the_video_does_not_count_for_drift(still):
    changed = still.copy()
    changed[8:-8] = 0

    assert Series.of(changed).drift() == Series.of(still).drift()


def test_a_slope_is_the_change_in_a_second(still):
    """Of a line it is exact; what goes away and comes back has none, though a frame in the middle is far from the start."""
    brighter = np.stack([np.full((8, 8, 3), 60 + frame, np.uint8) for frame in range(50)])
    there_and_back = np.concatenate([brighter, brighter[::-1]])

    rising, returning = (Series.of(frames) for frames in (brighter, there_and_back))

    assert slopes(torch.arange(50.0)[:, None] * 2 + 5, 25).tolist() == pytest.approx([50.0])
    assert float(slopes(rising.looks["lab_mean"], 25)[0]) > 8
    assert slopes(returning.looks["lab_mean"], 25).tolist() == pytest.approx([0, 0, 0], abs=0.01)
    assert returning.drift()["lab_mean"] < 0.5 and returning.from_start("lab_mean")[50] > 10


def test_flow_is_the_speed_of_what_moves():
    rows = np.arange(200)
    wave = 128 + 100 * np.sin(rows / 10)
    frames = np.stack([np.broadcast_to(wave[shift : shift + 128, None, None], (128, 128, 3)) for shift in range(12)])

    assert Series.of(frames.astype(np.uint8)).flow == pytest.approx(1.0, abs=0.1)
    assert Series.of(frames[::2].astype(np.uint8)).flow == pytest.approx(2.0, abs=0.2)


def test_a_jump_shows_in_the_joins(still):
    smooth = noisy(still[:37])
    jumped = smooth.copy()
    jumped[21:] = np.clip(jumped[21:].astype(int) + 30, 0, 255)
    others = [1, 5, 9, 13, 25, 29, 33]

    assert Series.of(smooth).joins([21], [17, *others]).tolist() == pytest.approx([1.0], abs=0.1)
    assert float(Series.of(jumped).joins([21], [17, *others])) > 5
    assert Series.of(jumped).joins([17], others).tolist() == pytest.approx([1.0], abs=0.1)
    assert Series.of(smooth).joins([], others).tolist() == []


def test_lab_is_cie_lab():
    assert to_lab(np.array([255, 255, 255])).tolist() == pytest.approx([100, 0, 0], abs=0.02)
    assert to_lab(np.array([255, 0, 0])).tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert to_lab(np.array([0, 0, 128])).tolist() == pytest.approx([12.97, 47.50, -64.70], abs=0.05)


def test_what_cannot_be_measured_is_refused(still):
    with pytest.raises(ValueError, match="fewer than two frames"):
        Series.of(still[:1])
    with pytest.raises(ValueError, match="frames are 64x3; use 4x4 or larger ones"):
        Series.of(still[:, :3, :64])
    with pytest.raises(ValueError, match="frames of a video have one size, but 64x128 follows 128x128"):
        Series.of([still[0], still[1][:, :64]])
    with pytest.raises(ValueError, match="nothing changes into frame 40 of a video of 40"):
        Series.of(still).joins([40], [])


def test_long_videos_are_measured_in_parts_with_the_same_result(monkeypatch):
    frames = Scene.draw(4_000_002).render(50)
    whole = Series.of(frames)

    monkeypatch.setattr(measuring, "MOST", 7)
    assert [(len(part), first) for part, first in measuring.parts(frames[:17])] == [(8, True), (8, False), (3, False)]

    found = Series.of(frames)
    assert found.drift() == pytest.approx(whole.drift(), rel=1e-4)
    assert (found.motion, found.flow) == pytest.approx((whole.motion, whole.flow), rel=1e-4)
    assert found.frames == 50 and all(len(values) == 50 for values in found.looks.values())


# Where sections meet


@pytest.mark.parametrize(
    ("frames", "window", "kind", "begins", "first_latents"),
    [
        (109, 9, "after a start image", (37, 73), (1, 5, 9)),
        (73, 4, "guessed", (17, 33, 49, 65), (1, 5, 9)),
        (65, 4, "after a start image", (17, 33, 49), (1, 5, 9)),
        (105, 9, "without a start image", (33, 69), (1, 5, 9)),
        (108, 9, "of a loop", (36, 72), (4, 8, 12)),
        (99, 9, "of Helios", (33, 66), (1, 5, 9)),
        (37, 9, "after a start image", (), (1, 5, 9)),
        (100, 9, "guessed as after a start image", (37, 73), (1, 5, 9)),
    ],
)
def test_the_number_of_frames_tells_where_sections_begin(frames, window, kind, begins, first_latents):
    found = Sections.of(frames, window)

    assert found.kind.startswith(f"sections {kind}") and found.begins == begins and found.latents[:3] == first_latents
    assert not set(found.begins) & set(found.latents) and max(found.latents) < frames


def test_helios_latent_frames_begin_again_in_each_chunk():
    assert Sections.of(66, 9).latents == (1, 5, 9, 13, 17, 21, 25, 29, 34, 38, 42, 46, 50, 54, 58, 62)


# The table and the plot


def test_a_table_of_a_video_without_sections_has_no_joins(still):
    table = Report(Series.of(still), 30, 0).table()

    assert table.splitlines()[0] == "40 frames of 128x128, 1.33 s at 30 fps; start and end are 15% of them each"
    assert "joins: none (a video without sections)" in table
    assert "from start to end: contrast +0%, sharpness +0%" in table


def test_a_video_of_one_colour_has_a_table_and_a_plot_too():
    report = Report(Series.of(np.full((40, 16, 16, 3), 90, np.uint8)), 30, 9)

    assert "from start to end: one colour" in report.table()
    assert plot(report).width == 1200


def test_a_table_says_what_changes_and_where_the_worst_join_is(still):
    frames = noisy(np.concatenate([still, still[:33]]))
    frames[37:] = np.clip(frames[37:].astype(int) + 30, 0, 255)

    lines = Report(Series.of(frames), 30, 9).table().splitlines()

    lightness = next(line for line in lines if line.startswith("lightness"))
    start, end, change, _ = (float(value) for value in lightness.split()[4:])
    assert change == pytest.approx(end - start, abs=0.11) and change > 5
    (joins,) = [line for line in lines if line.startswith("joins")]
    assert "at 1.23 s (1 of sections after a start image)" in joins
    assert float(joins.split("at most ")[1].split()[0]) > 5


def test_frames_that_begin_a_section_are_compared_with_its_others(still):
    """As much contrast as others report of the first frames of Helios' chunks."""
    frames = np.concatenate([still[:33]] * 3).astype(float)
    mean = frames.mean()
    for begin in (33, 66):
        frames[begin : begin + 4] = mean + 0.93 * (frames[begin : begin + 4] - mean)

    table = Report(Series.of(frames.astype(np.uint8)), 24, 9).table()

    (line,) = [line for line in table.splitlines() if line.startswith("a section's first 4 frames")]
    assert float(line.split("others: ")[1].split("%")[0]) == pytest.approx(93.0, abs=0.5)


def test_a_plot_has_a_panel_for_each_measure_and_the_scale_holds_all_values(still):
    report = Report(Series.of(noisy(still)), 30, 4)

    picture = plot(report)

    assert picture.width == 1200 and len(picture.getcolors(1 << 24)) > 3
    for panel in panels(report):
        low, high = panel.scale
        assert high - low == pytest.approx(panel.least) or high - low > panel.least
        assert all(low <= line.min() and line.max() <= high for line in panel.lines) and low <= panel.level <= high


def test_a_plot_shows_a_jump_where_it_is(still):
    jumped = still.copy()
    jumped[20:] = np.clip(jumped[20:].astype(int) + 60, 0, 255)

    changes = np.asarray(plot(Report(Series.of(jumped), 30, 0)))[3 * 190 : 4 * 190]

    highest = np.argwhere((changes == LIGHT.generated).all(axis=-1))[0]
    assert highest[1] == pytest.approx(110 + 20 / 39 * (1200 - 24 - 110), abs=15)
