"""Drift reacts to what it is named after, and to nothing else."""

import numpy as np
import pytest

from experiments.measures import drift
from framepack_core.demo.world import Scene

STILL = Scene.draw(4_000_001, shapes=1).with_motion("stop")


@pytest.fixture
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


def test_a_still_video_has_neither_drift_nor_motion(still):
    assert drift.drift(still) == dict.fromkeys(drift.MEASURES, 0.0)
    assert drift.motion(still) == drift.flow(still) == 0.0


def test_a_colour_cast_moves_lab_and_hsv_and_leaves_sharpness(still):
    found = drift.drift(faded(still, lambda frame, share: frame + share * np.array([12, 0, -12])))

    assert found["lab_mean"] > 4 and found["hsv"] > 0.1
    assert found["laplacian"] < 0.05 * float(drift.averages(still)["laplacian"])


def test_blur_lowers_sharpness_and_high_frequencies(still):
    soft = faded(still, softer)
    before, after = drift.averages(soft[:6]), drift.averages(soft[-6:])

    assert after["laplacian"] < before["laplacian"] / 2
    assert after["high_frequency"] < before["high_frequency"]
    assert drift.drift(soft)["laplacian"] == pytest.approx(float(before["laplacian"] - after["laplacian"]))
    assert drift.drift(soft)["lab_mean"] < 0.5


def test_fading_lowers_contrast(still):
    mean = still.mean()

    found = drift.drift(faded(still, lambda frame, share: mean + (frame - mean) * (1 - share / 2)))

    assert found["contrast"] > 0.3 * float(drift.averages(still)["contrast"])


def test_the_middle_of_the_video_does_not_count(still):
    changed = still.copy()
    changed[8:-8] = 0

    assert drift.drift(changed) == drift.drift(still)


def test_flow_is_the_speed_of_what_moves():
    rows = np.arange(200)
    wave = 128 + 100 * np.sin(rows / 10)
    frames = np.stack([np.broadcast_to(wave[shift : shift + 128, None, None], (128, 128, 3)) for shift in range(12)])

    assert drift.flow(frames.astype(np.uint8)) == pytest.approx(1.0, abs=0.1)
    assert drift.flow(frames[::2].astype(np.uint8)) == pytest.approx(2.0, abs=0.2)


def test_a_jump_at_a_section_shows_in_the_joins(still):
    rng = np.random.default_rng(0)
    smooth = np.clip(still[:37] + rng.normal(0, 2, still[:37].shape), 0, 255).astype(np.uint8)
    jumped = smooth.copy()
    jumped[21:] = np.clip(jumped[21:].astype(int) + 30, 0, 255)  # pixel frame 21 is the first of latent frame 6

    assert drift.joins(smooth, [6]) == pytest.approx(1.0, abs=0.1)
    assert drift.joins(jumped, [6]) > 5
    assert drift.joins(jumped, [5]) == pytest.approx(1.0, abs=0.1)
    assert drift.joins(smooth, []) == 1.0


def test_lab_is_cie_lab():
    assert drift.to_lab(np.array([255, 255, 255])).tolist() == pytest.approx([100, 0, 0], abs=0.02)
    assert drift.to_lab(np.array([255, 0, 0])).tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert drift.to_lab(np.array([0, 0, 128])).tolist() == pytest.approx([12.97, 47.50, -64.70], abs=0.05)


def test_a_video_without_a_start_and_an_end_and_a_join_outside_are_refused(still):
    with pytest.raises(ValueError, match="at least two frames F H W 3"):
        drift.drift(still[:1])
    with pytest.raises(ValueError, match=r"sections start at latent frames \[11\], but the video has 40 pixel frames"):
        drift.joins(still, [11])


def test_long_videos_are_measured_in_parts_with_the_same_result(monkeypatch):
    frames = Scene.draw(4_000_002).render(50)
    whole = drift.drift(frames), drift.motion(frames), drift.flow(frames)

    monkeypatch.setattr(drift, "CHUNK", 7)

    parts = drift.drift(frames), drift.motion(frames), drift.flow(frames)
    assert parts[0] == pytest.approx(whole[0], rel=1e-4)
    assert parts[1:] == pytest.approx(whole[1:], rel=1e-4)
