"""Tests that drive a real ComfyUI through its HTTP API; `server` itself is in tests/conftest.py."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.stand_ins.models import NODES

from scripts.support.environment import Environment
from scripts.support.server import Server


@pytest.fixture
def new_server(environment: Environment, models_directory: Path, tmp_path_factory) -> Iterator[Callable[..., Server]]:
    """`new_server(*flags, models=None)` starts another ComfyUI, which stops with the test."""

    def start(*flags: str, models: Path = models_directory) -> Server:
        base = tmp_path_factory.mktemp("comfyui")
        return servers.enter_context(Server(environment, base, models, flags=flags, packs=[NODES]))

    with ExitStack() as servers:
        yield start
