"""The experiments' pipeline on the demo model: a few videos are kept, resumed and reported. The figures mean nothing here."""

import json
import re
from argparse import Namespace
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.study import report, run
from experiments.study.findings import findings
from experiments.study.intervals import mean, share
from experiments.study.results import Results
from experiments.study.settings import Settings
from experiments.study.videos import CONFIGURATIONS, EXPERIMENTS, SAMPLERS, Amount, Video, Way, in_sight, motion_of
from framepack_core.orders import ORDERS

TINY = Amount(
    obedience=1, example=1, samplers=0, prompts=1, layouts=1, lengths=((1, 1), (2, 1)), paddings=0, anchors=0, changes=1,
    cache=0, long=3, vae=1, orders=0, far_orders=0, long_layouts=0, tails=0, windows=0, errors=0,
)  # fmt: skip
WAY = Way(steps=1)
ONE = Video(0, "left", 1, "inverted", "framepack", steps=1)


@pytest.fixture(scope="module")
def finished(studio, tmp_path_factory) -> Path:
    """A folder with the results and the report of a complete tiny run."""
    folder = tmp_path_factory.mktemp("experiments")
    results = Results(folder / "results.jsonl", "weights")
    options = Namespace(only=("vae", "obedience", "prompts", "lengths", "changes", "long"), batch=2, results=results.path)
    run.run(studio, results, TINY, WAY, options)
    report.write(results, TINY, WAY, folder / "docs")
    return folder


@pytest.mark.slow
def test_every_video_that_was_asked_for_has_its_findings(finished):
    results = Results(finished / "results.jsonl", "weights")
    wanted = {video for name in ("obedience", "prompts", "lengths", "changes") for video in WAY.of(EXPERIMENTS[name](TINY))}

    assert all(video.to_dict() in results for video in wanted)
    assert {video.source for video in wanted} == {"model", "world", "vae"}
    for video in wanted:
        found = results[video.to_dict()]
        assert len(found["by_section"]) == video.sections
        assert found["motion"] > 0
        if video.source == "world":
            assert found["obeys"] == [True] and found["fit"] > 0.9


@pytest.mark.slow
def test_the_report_has_every_table_and_its_images(finished):
    text = (finished / "docs" / "EXPERIMENTS.md").read_text()

    assert "| endpoints, endpoints | 1 |" in text
    assert re.search(r"\| endpoints \| 1 \| \d+% \(", text)
    assert "| left | 0/1 |" in text or "| left | 1/1 |" in text
    assert "Token counts are equal from the third section on in all 10 pairs" in text
    assert "not run" in text  # layouts and paddings were left out
    assert "{" not in text
    for image in ("obedience", "lengths", "sections", "long"):
        assert f"](images/experiments/{image}.png)" in text
        assert (finished / "docs" / "images" / "experiments" / f"{image}.png").stat().st_size > 1000


def test_a_cache_spares_calls_and_each_video_decides_for_itself(studio):
    plain, cached = (replace(ONE, steps=8, cache=threshold) for threshold in (0.0, 0.1))
    all_steps, some = studio.sample([plain]), studio.sample([cached])

    assert all_steps.calls == 1 and 0.3 < some.calls < 0.8
    assert 0.001 < (some.latents - all_steps.latents).norm() / all_steps.latents.norm() < 0.2
    assert plain.batch == replace(plain, scene=1).batch and cached.batch != replace(cached, scene=1).batch


def test_the_report_has_what_the_cache_does(studio, tmp_path):
    some = [video for video in EXPERIMENTS["cache"](replace(TINY, cache=1)) if video.order == "forward"]
    results = Results(tmp_path / "results.jsonl", "weights")
    frames = some[0].told.render(4 * 36 + 1)
    results.add([(video.to_dict(), findings(video, frames) | {"calls": 1 - video.cache}) for video in WAY.of(some)])

    page = Settings(results, replace(TINY, cache=1), WAY, tmp_path)

    assert {video.steps for video in some} == {25}, "and WAY, which has others, leaves them"
    assert [line.split(" | ")[:5] for line in page.cache().splitlines()[2:]] == [
        ["| forward", threshold, calls, "1", "100% (21 to 100)"]
        for threshold, calls in (("off", "1.00"), ("0.02", "0.98"), ("0.03", "0.97"), ("0.1", "0.90"))
    ]
    _, _, *lines = page.cache_drift().splitlines()
    assert list(dict.fromkeys(line.split(" | ")[0] for line in lines)) == [
        f"| forward: all steps and {threshold}" for threshold in ("0.02", "0.03", "0.1")
    ]
    assert all(line.endswith("| too few | - | - |") for line in lines), "one scene shows nothing"


def test_anchored_videos_keep_the_start_s_colours(studio):
    plain, anchored = (studio.sample([replace(ONE, colour_anchor=anchor)]).latents for anchor in (0.0, 1.0))

    start, section = anchored[:, :, :1], anchored[:, :, 1:]
    torch.testing.assert_close(section.mean((2, 3, 4)), start.mean((2, 3, 4)), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(plain[:, :, 1:], section, atol=1e-2)


def test_a_video_is_told_something_else_from_its_middle_on(studio):
    once, changed = (replace(ONE, motion="stop", sections=2, order="forward", layout="f1", then=then) for then in ("", "left"))

    before, after = (studio.sample([video]).latents for video in (once, changed))

    torch.testing.assert_close(after[:, :, :10], before[:, :, :10])
    assert (after[:, :, 10:] - before[:, :, 10:]).abs().max() > 0.01


def test_prompts_change_in_every_order_with_and_without_parts_and_in_every_scene_while_the_shape_can_be_seen():
    changed = [video for video in EXPERIMENTS["changes"](replace(TINY, changes=12)) if video.then]

    for order, in_parts in product(ORDERS, (False, True)):
        some = [video for video in changed if (video.order, video.in_parts) == (order, in_parts)]
        assert {video.scene for video in some if in_sight(video)} == set(range(12))
        assert len({video.scene for video in some if not in_sight(video)}) == 7
    assert len({(video.motion, video.then) for video in changed}) > 10
    for video in changed:
        (place, *_) = video.told.truth(video.middle)
        assert in_sight(video) == all(place.radius <= at <= 128 - place.radius for at in (place.x, place.y))


def test_each_half_is_judged_by_what_it_is_told():
    changed = Video(0, "stop", 4, then="left")
    frames = np.concatenate(
        [
            changed.told.render(changed.middle),
            changed.told_then.render(2 * changed.middle - 1 - changed.middle),
        ]
    )

    assert findings(changed, frames)["halves"] == [True, True]
    assert findings(replace(changed, then="up"), frames)["halves"] == [True, False]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_makes_nothing_twice(finished, tmp_path):
    lines = (finished / "results.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "results.jsonl"
    path.write_text("".join(lines[:-1]) + lines[-1][:40])  # killed while writing

    results = Results(path, "weights")
    left = [video for name in EXPERIMENTS for video in WAY.of(EXPERIMENTS[name](TINY)) if video.to_dict() not in results]

    assert path.read_text() == "".join(lines[:-1])
    assert run.batches(WAY.of(EXPERIMENTS["obedience"](TINY)), Results(finished / "results.jsonl", "weights"), 2) == []
    assert len(run.batches(left, results, 100)) == len({video.batch for video in left})


@pytest.mark.slow
def test_results_of_other_weights_do_not_count(finished):
    assert list(Results(finished / "results.jsonl", "others").items()) == []


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"weights": "w", "made": {}, "found": {}}\nnonsense\n')

    with pytest.raises(ValueError, match=r"results\.jsonl, line 2 is not a result"):
        Results(path, "w")


def test_what_is_not_a_number_is_kept_as_nothing(tmp_path):
    results = Results(tmp_path / "results.jsonl", "w")
    results.add([({"scene": 1}, {"color": [float("nan"), 1.23456789]})])

    assert Results(results.path, "w")[{"scene": 1}] == {"color": [None, 1.2346]}
    assert json.loads(results.path.read_text())["found"]["color"] == [None, 1.2346]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_video_is_the_same_alone_and_in_a_batch(sampler, order, studio):
    """Whether or not the sampler adds noise, and whether or not all sections are as long."""
    one = replace(ONE, sections=2, order=order, layout=ORDERS[order].layout, steps=2, sampler=sampler)
    others = [replace(one, scene=scene, motion=motion_of(scene)) for scene in (1, 2)]

    alone, together = studio.sample([one]).latents, studio.sample([*others, one]).latents

    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_another_prompt_on_the_same_picture_has_the_same_start_and_noise(studio):
    told_otherwise = replace(ONE, motion="stop")

    assert told_otherwise.told.caption != ONE.told.caption
    np.testing.assert_array_equal(told_otherwise.told.render(1), ONE.told.render(1))
    assert not torch.equal(studio.sample([told_otherwise]).latents, studio.sample([ONE]).latents)


def test_a_scene_has_as_many_shapes_as_are_asked_for():
    videos = list(EXPERIMENTS["shapes"](replace(TINY, shapes=3)))

    assert len(videos) == 3 * 2 * 3
    assert all(len(video.told.actors) == video.shapes and video.told.actors[0].motion == video.motion for video in videos)
    assert "shapes" not in ONE.to_dict(), "as in results made before"


def test_the_page_s_commands_name_experiments():
    commands = re.findall(r"--only ([a-z_ ]+)", report.TEMPLATE.read_text(encoding="utf-8"))

    assert commands and {name for command in commands for name in command.split()} <= set(run.NAMES)


def test_prose_is_wrapped_with_what_its_names_stand_for_and_tables_stay_as_they_are():
    values = {"ratio__a b__c": "0.70 (0.53 to 0.93)", "rows": "| a | b |\n| --- | --- |\n| 1 | 2 |"}

    assert report.filled("It is\n{ratio__a b__c}\ntimes as much.", values) == "It is 0.70 (0.53 to 0.93) times as much."
    assert report.filled("- one\n  {ratio__a b__c}\n- two", values) == "- one 0.70 (0.53 to 0.93)\n- two"
    assert report.filled("{rows}", values) == values["rows"]
    assert report.filled("```\nsteps\n{ratio__a b__c}\n```", values) == "```\nsteps\n0.70 (0.53 to 0.93)\n```"
    long = report.filled(f"{'word ' * 60}{{ratio__a b__c}}", values).splitlines()
    assert len(long) == 3 and max(map(len, long)) <= report.WIDTH


def test_samplers_are_compared_in_every_order_at_one_shift():
    videos = list(EXPERIMENTS["samplers"](replace(TINY, samplers=2)))

    assert len(videos) == len(set(videos)) == len(ORDERS) * 2 * len(SAMPLERS)
    assert len({(video.steps, video.shift) for video in videos}) == 1


def test_every_order_has_its_own_layout_among_the_configurations():
    assert {(order.name, order.layout) for order in ORDERS.values()} <= set(CONFIGURATIONS)
    assert not any(layout == "temporal" for _, layout in CONFIGURATIONS)  # its kernels are not trained


def test_intervals():
    assert share([True] * 36 + [False] * 4) == pytest.approx((0.9, 0.7695, 0.9604, 40), abs=1e-4)
    assert all(share([True] * videos).high == 1 and share([False] * videos).low == 0 for videos in range(1, 60))
    wide = mean([1.0, 2.0, 3.0, 4.0])
    assert wide.value == 2.5 and 1.0 < wide.low < 2.0 and 3.0 < wide.high < 4.0
    assert mean([5.0, None, float("nan")])[::3] == (5.0, 1)
    assert mean([]).videos == 0
