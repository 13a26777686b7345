"""The benchmarks of few steps and of skipped ones, on a few calls of the demo's model. The figures mean nothing here."""

import pytest
import torch

from experiments.benchmarks import expected, steps
from experiments.benchmarks.expected import WAYS, Call, mean_error
from experiments.benchmarks.steps import SAMPLERS, SHIFTS, SOLVERS, STEPS, Way, made, measure, report, ways
from experiments.study.results import Results
from experiments.study.run import quiet_comfyui
from experiments.study.studio import Studio


@pytest.fixture
def results(tmp_path) -> Results:
    return Results(tmp_path / "steps.jsonl", "weights")


def test_a_video_that_is_made_as_the_reference_is_the_reference_and_is_made_once(results, monkeypatch):
    quiet_comfyui()
    monkeypatch.setattr(steps, "REFERENCE", Way("unipc_bh1", 3))
    wanted = [Way("unipc_bh1", 3), Way("euler", 2)]

    measure(Studio(), results, [0], wanted)
    same, other = (results[made(0, way)] for way in wanted)

    assert same["psnr"] == 120 and 10 < other["psnr"] < 60
    assert same["calls"] == 1 and 0 < same["fit"] <= 1
    measure(None, results, [0], wanted)


def test_the_table_has_medians_and_no_distance_for_a_sampler_with_noise_of_its_own(results):
    found = ((scene, way) for way in ways() for scene in range(3))
    results.add([(made(scene, way), {"psnr": 30.0 + scene**2, "fit": 0.5 + scene / 10, "calls": 0.9}) for scene, way in found])

    lines = report(results, 3).splitlines()

    assert "| euler | auto | off | 31.0 dB, 0.60 | 31.0 dB, 0.60 | 31.0 dB, 0.60 | 31.0 dB, 0.60 |" in lines
    assert "| er_sde | auto | off | 0.60 | 0.60 | 0.60 | 0.60 |" in lines
    assert "| euler | auto | 0.02 | " + " | ".join(["31.0 dB, 0.60, 0.90"] * len(STEPS)) + " |" in lines
    assert len(lines) == 2 + len(SHIFTS) * (len(SAMPLERS) + len(SOLVERS))


def test_what_has_not_been_made_is_left_out_of_the_table(results):
    way = Way("euler", 8)
    results.add([(made(scene, way), {"psnr": 30.0, "fit": 0.5, "calls": 1.0}) for scene in range(2)])

    assert report(results, 2).splitlines()[2:] == ["| euler | auto | off |  | 30.0 dB, 0.50 |  |  |"]
    assert len(report(results, 3).splitlines()) == 2


def calls(velocity) -> list[Call]:
    """Of a section whose video, at each noise level, is `velocity` of it."""
    sigmas = [1 - step / 25 for step in range(25)]
    return [Call(sigma, torch.tensor([5.0, -3.0]), velocity(sigma)) for sigma in sigmas]


def test_lines_and_parabolas_are_expected_exactly_by_what_goes_through_them():
    straight = calls(lambda sigma: torch.tensor([1.0 + sigma, 2.0 - 3 * sigma]))
    bent = calls(lambda sigma: torch.tensor([1.0 + sigma**2, 2.0 - 3 * sigma**2]))
    line, parabola, last = (
        WAYS[f"the {name}"] for name in ("line through the last two", "parabola through the last three", "last one")
    )

    assert mean_error(line, [straight]) < 1e-5 < mean_error(last, [straight])
    assert mean_error(parabola, [bent]) < 1e-5 < mean_error(line, [bent])


def test_a_video_that_does_not_change_is_expected_exactly_from_the_last_one():
    still = calls(lambda sigma: (torch.tensor([5.0, -3.0]) - torch.tensor([1.0, 1.0])) / sigma)

    assert mean_error(WAYS["from the last video (x0)"], [still]) < 1e-5
    assert mean_error(next(iter(WAYS.values())), [still]) > 1e-3


def test_a_section_s_calls_are_recorded_in_order(monkeypatch):
    monkeypatch.setattr(expected, "STEPS", 3)

    (first, second) = expected.recorded(2)

    assert [len(first), len(second)] == [3, 3]
    assert [call.sigma for call in first] == sorted((call.sigma for call in first), reverse=True)
    assert not torch.equal(first[0].x, second[0].x)
