"""Nothing lost: what was finished before a cancel, a crash or a killed server is not made again."""

from __future__ import annotations

import random
import re
import time

import pytest
import torch

from scripts.environment import ROOT
from scripts.server import RunFailed, Server, ServerError
from tests.server.graph import Graph, Outputs, Seen

START_IMAGE = ROOT / "scripts" / "stand_ins" / "start_image.png"
DISCARD, RETURN = "discard", "return finished part"


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


class StopAfter(Seen):
    """Calls `stop` when the node says that it has done so many steps."""

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
    """What the node says of sections that it did not make again: `2 of 5`."""
    found = re.findall(r"^resumed: (\d+ of \d+) sections from \d{4}-\d\d-\d\d \d\d:\d\d$", "\n".join(seen.texts(node)), re.M)
    return found[0] if found else None


def run(graph: Graph, server: Server, sampler: Outputs) -> tuple[torch.Tensor, str | None]:
    """The video, and what was resumed."""
    seen = Seen()
    latents = graph.latents(server, sampler, on_message=seen)
    return latents, resumed(seen, sampler)


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
