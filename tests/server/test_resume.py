"""Nothing is lost: what was finished before a cancel, a crash or a killed server is not made again."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.graph import Graph, Outputs, Seen, new_log_lines, own_models
from support.stand_ins.models import NODES
from support.stand_ins.prompt import LORA

from scripts.support.environment import ROOT
from scripts.support.server import RunFailed, Server, ServerError

START_IMAGE = ROOT / "tests" / "support" / "stand_ins" / "start_image.png"
RETURN = "return finished part"


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


class StopAfter(Seen):
    """Calls `stop` when the node says that it has done this many steps."""

    def __init__(self, node: Outputs, steps: int, stop) -> None:
        super().__init__()
        self.node, self.left, self.stop = node, steps, stop

    def __call__(self, message) -> None:
        super().__call__(message)
        if message["type"] == "text" and re.search(r"step [1-9]\d* of", message["data"]["text"]):
            self.left -= 1
            if self.left == 0:
                self.stop()


def resumed(seen: Seen, node: Outputs) -> str | None:
    """What the node says about sections that it did not make again: `2 of 5`."""
    found = re.findall(r"^resumed: (\d+ of \d+) sections from \d{4}-\d\d-\d\d \d\d:\d\d$", "\n".join(seen.texts(node)), re.M)
    return found[0] if found else None


def run(graph: Graph, server: Server, sampler: Outputs) -> tuple[torch.Tensor, str | None]:
    """The video and what was resumed."""
    seen = Seen()
    latents = graph.latents(server, sampler, on_message=seen)
    return latents, resumed(seen, sampler)


def sections_folder(server: Server) -> Path:
    return server.base / "user" / "__framepack" / "sections"


def newest_run(server: Server) -> Path:
    return max(sections_folder(server).iterdir(), key=lambda run: run.stat().st_mtime)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@contextmanager
def a_file_in_place_of(folder: Path) -> Iterator[None]:
    aside = folder.rename(folder.with_name("aside"))
    folder.write_text("no folder")
    yield
    folder.unlink()
    aside.rename(folder)


def cancel(graph: Graph, server: Server, sampler: Outputs, steps: int) -> None:
    with pytest.raises(RunFailed) as failure:
        graph.latents(server, sampler, on_message=StopAfter(sampler, steps, server.interrupt))
    assert failure.value.interrupted


@pytest.mark.parametrize(
    ("order", "sampler"), [("inverted", "unipc_bh1"), ("forward", "euler_ancestral"), ("endpoints", "dpmpp_sde")]
)
def test_after_a_cancel_the_same_graph_goes_on_and_ends_in_the_same_video(graph, server, order, sampler):
    plan = graph.plan_of(4, order=order)
    settings = {"plan": plan, "sampler": sampler, "steps": 4, "seed": 100}
    stopped = graph.sampler(**settings)
    cancel(graph, server, stopped, steps=10)

    found, what = run(graph, server, stopped)
    expected, nothing = run(graph, server, graph.sampler(**settings, resume=False))

    assert what in ("2 of 4", "2 of 3") and nothing is None
    assert torch.equal(found, expected)


def test_a_graph_with_other_node_ids_goes_on_too(graph, server, start_image):
    cancel(graph, server, graph.sampler(plan=graph.plan_of(3), seed=200), steps=3)
    other = Graph(start_image)
    other.text("This node leads nowhere")

    assert run(other, server, other.sampler(plan=other.plan_of(3), seed=200))[1] == "1 of 3"


@pytest.mark.parametrize("change", ["seed", "steps", "guidance", "sampler", "text", "image", "lora", "our own lora"])
def test_nothing_is_resumed_when_something_else_decides_the_result(graph, server, change):
    before = {"plan": graph.plan_of(2), "seed": 300}
    graph.latents(server, graph.sampler(**before))
    lora = {"model": graph.model, "lora_name": LORA, "strength_model": 0.5}
    after = {
        "seed": lambda: {"seed": 301},
        "steps": lambda: {"steps": 3},
        "guidance": lambda: {"guidance": 9.0},
        "sampler": lambda: {"sampler": "euler"},
        "text": lambda: {"positive": graph.text("The girl sits down")},
        "image": lambda: {"clip_vision_output": None},
        "lora": lambda: {"model": graph.add("LoraLoaderModelOnly", **lora)},
        "our own lora": lambda: {"model": graph.add("FramePack_LoadLora", model=graph.model, lora_name=LORA, strength=0.5)},
    }

    assert run(graph, server, graph.sampler(**before | after[change]()))[1] is None


def test_the_node_says_why_sections_of_nearly_the_same_run_are_not_used(graph, server):
    """The start image's latents differ by a thousandth, as after an encode in other tiles."""
    settings = {"plan": graph.plan_of(2), "seed": 350}
    graph.latents(server, graph.sampler(**settings))
    scaled = graph.add("LatentMultiply", samples=graph.start, multiplier=1.001)
    sampler, seen = graph.sampler(**settings, start_latent=scaled), Seen()

    graph.latents(server, sampler, on_message=seen)

    lines = "\n".join(seen.texts(sampler)).splitlines()
    found = [line for line in lines if line.startswith("2 finished sections from 20")]
    assert found and found[0].endswith("cannot be used, because the latents of the start or end image differ slightly")
    assert not resumed(seen, sampler)


def test_a_longer_forward_video_begins_with_the_shorter_one_and_does_not_make_it_again(graph, server):
    settings = {"sampler": "euler_ancestral", "seed": 400}
    short = graph.latents(server, graph.sampler(plan=graph.plan_of(2, order="forward"), **settings))

    long, what = run(graph, server, graph.sampler(plan=graph.plan_of(4, order="forward"), **settings))
    alone, _ = run(graph, server, graph.sampler(plan=graph.plan_of(4, order="forward"), **settings, resume=False))

    assert what == "2 of 4"
    assert torch.equal(long[:, :, :19], short) and torch.equal(long, alone)


# Cancel and keep what is finished


@pytest.mark.parametrize(
    ("order", "frames"),
    [("forward", slice(0, 19)), ("inverted", slice(19, 37)), ("endpoints", slice(0, 19))],
)
def test_a_cancel_may_return_the_finished_part_and_the_graph_goes_on(graph, server, order, frames):
    """Two sections: 18 frames, and the start if they follow it directly."""
    plan = graph.plan_of(4, order=order)
    settings = {"plan": plan, "steps": 4, "seed": 500}
    sampler = graph.sampler(**settings, on_cancel=RETURN)

    part = graph.latents(server, sampler, on_message=StopAfter(sampler, 10, server.interrupt))
    whole, what = run(graph, server, sampler)

    assert torch.equal(part, whole[:, :, frames])
    assert what == f"2 of {3 if order == 'endpoints' else 4}"


def test_a_cancel_before_anything_is_finished_is_a_cancel(graph, server):
    cancel(graph, server, graph.sampler(plan=graph.plan_of(2), steps=6, seed=501, on_cancel=RETURN), steps=2)


def test_a_section_that_is_not_finite_ends_the_run_and_is_never_kept(graph, server, models_directory):
    weights = load_file(models_directory / "loras" / LORA)
    with own_models(server, "loras") as folder:
        save_file({name: weight * math.nan for name, weight in weights.items()}, folder / "nan.safetensors")
        lora = graph.add(
            "LoraLoaderModelOnly", model=graph.model, lora_name=f"{folder.name}/nan.safetensors", strength_model=1.0
        )
        saving = graph.saving(graph.sampler(model=lora, plan=graph.plan_of(2), seed=650))
        before = {*sections_folder(server).rglob("*")}

        for _ in range(2):
            with pytest.raises(RunFailed, match="FramePack_Sampler: section 1 has values that are not finite"):
                server.run(saving)

    assert {*sections_folder(server).rglob("*")} == before


# Trouble with the disk


def test_a_damaged_section_is_made_again_with_those_after_it(graph, server):
    settings = {"plan": graph.plan_of(3), "seed": 600}
    expected = graph.latents(server, graph.sampler(**settings))
    flip_a_bit(sorted(newest_run(server).iterdir())[1])

    seen = Seen()
    sampler = graph.sampler(**settings, on_cancel=RETURN)  # so that ComfyUI does not simply take the result from its cache
    with new_log_lines(server) as log:
        found = graph.latents(server, sampler, on_message=seen)

    assert resumed(seen, sampler) == "1 of 3"
    assert "a finished section was damaged and is made again: 0002-" in "\n".join(seen.texts(sampler)) and "0002-" in log.text
    assert torch.equal(found, expected)


def test_a_disk_that_cannot_be_written_costs_a_warning_only(graph, server):
    settings = {"plan": graph.plan_of(2), "seed": 601}
    sampler = graph.sampler(**settings)
    seen = Seen()
    with a_file_in_place_of(sections_folder(server)), new_log_lines(server) as log:
        found = graph.latents(server, sampler, on_message=seen)

    assert "finished sections cannot be kept" in "\n".join(seen.texts(sampler))
    assert log.text.count("finished sections cannot be kept") == 1
    assert torch.equal(found, graph.latents(server, graph.sampler(**settings, resume=False)))


def test_the_setting_of_zero_gigabytes_keeps_nothing(graph, server):
    graph.latents(server, graph.sampler(seed=602))
    server.set_setting("FramePack.CheckpointGB", 0)
    try:
        cancel(graph, server, graph.sampler(plan=graph.plan_of(2), seed=603), steps=3)

        assert list(sections_folder(server).iterdir()) == []
        assert run(graph, server, graph.sampler(plan=graph.plan_of(2), seed=603))[1] is None
    finally:
        server.set_setting("FramePack.CheckpointGB", 10)


def test_without_resume_nothing_is_written(graph, server):
    before = set(sections_folder(server).iterdir())

    graph.latents(server, graph.sampler(seed=604, resume=False))

    assert set(sections_folder(server).iterdir()) == before


# Killed servers


KILLS = 4


@pytest.mark.slow
def test_a_run_killed_four_times_ends_as_if_nothing_had_been(graph, server, environment, models_directory, tmp_path):
    """Each server is killed in the middle of sampling; the next one finds everything that those before had finished."""
    start = partial(Server, environment, tmp_path / "comfyui", models_directory, packs=[NODES])
    moments = random.Random(KILLS)
    settings = {"steps": 3, "seed": 700, "sampler": "euler_ancestral"}
    sections, done = 2 * KILLS + 2, 0
    for _ in range(KILLS):
        with start() as killed:
            mine = Graph(killed.upload_image(START_IMAGE))
            sampler = mine.sampler(plan=mine.plan_of(sections), **settings)
            kill = partial(kill_after, moments.uniform(0, 0.03), killed)
            seen = StopAfter(sampler, moments.randint(1, 5), kill)
            with pytest.raises((ServerError, OSError)):
                mine.latents(killed, sampler, on_message=seen)
        assert resumed(seen, sampler) == spelled(done, sections)
        done = finished(killed)

    with start() as last:
        mine = Graph(last.upload_image(START_IMAGE))
        found, what = run(mine, last, mine.sampler(plan=mine.plan_of(sections), **settings))
    expected = graph.latents(server, graph.sampler(plan=graph.plan_of(sections), **settings))

    assert 0 < done < sections and what == spelled(done, sections)
    assert torch.equal(found, expected)


def kill_after(seconds: float, server: Server) -> None:
    time.sleep(seconds)
    server.kill()


def finished(server: Server) -> int:
    """The finished sections of the only run that a server has."""
    return len(list(sections_folder(server).glob("*/*.safetensors")))


def spelled(done: int, sections: int) -> str | None:
    return f"{done} of {sections}" if done else None
