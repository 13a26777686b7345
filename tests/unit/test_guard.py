"""A server that a command has started ends with the command, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.signals import undo_ignored

from scripts.support.environment import ROOT, Environment
from scripts.support.server import Server

COMFYUI = """
import argparse, http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
port = parser.parse_known_args()[0].port
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""
COMMAND = """
import sys, time
from pathlib import Path
from tempfile import mkdtemp
sys.path.append(sys.argv[1])
from scripts.support.environment import Environment
from scripts.support.server import Server
environment = Environment(Path(sys.executable), Path(sys.argv[2]), Path(sys.argv[2]))
with Server(environment, Path(mkdtemp(dir=sys.argv[3])), temporary=True) as server:
    print(server.url, flush=True)
    time.sleep(60)
"""
WAYS = [["SIGINT"], ["SIGTERM"], ["SIGHUP"], ["SIGKILL"], ["SIGINT", "SIGINT"], ["SIGINT", "SIGTERM"]]


@pytest.fixture
def comfyui(tmp_path) -> Path:
    """A folder with a main.py that only says that it is there."""
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    (folder / "main.py").write_text(COMFYUI)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="Windows has one way to end a process")
@pytest.mark.parametrize("way", WAYS, ids=" then ".join)
def test_a_command_that_is_ended_takes_its_server_and_its_folder_along(tmp_path, comfyui, way):
    """A second time while it is ending, too."""
    bases = tmp_path / "bases"
    bases.mkdir()
    command = [sys.executable, "-c", COMMAND, ROOT, comfyui, bases]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=undo_ignored
    ) as running:
        assert running.stdout
        url = running.stdout.readline().strip()
        assert answers(url) and len(list(bases.iterdir())) == 1

        (next(bases.iterdir()) / "many").mkdir()
        for number in range(5_000):
            (next(bases.iterdir()) / "many" / str(number)).touch()
        for name in way:
            running.send_signal(signal.Signals[name])
            time.sleep(0.1)

    assert within_seconds(5, lambda: not answers(url))
    assert within_seconds(5, lambda: not list(bases.iterdir()))


@pytest.mark.parametrize("temporary", [False, True])
def test_a_server_that_is_stopped_leaves_no_guard_and_removes_a_temporary_folder(tmp_path, comfyui, temporary):
    environment = Environment(Path(sys.executable), comfyui, comfyui)

    with Server(environment, tmp_path / "base", temporary=temporary) as server:
        guard = server._guard
        assert guard.poll() is None

    assert guard.poll() is not None
    assert not answers(server.url) and server.log.is_file() != temporary


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def within_seconds(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()
