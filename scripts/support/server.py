"""A real ComfyUI with this pack, as a subprocess that is driven through its HTTP API.

    with Server(environment, base, models) as server:
        entry = server.run(prompt)
        video, *_ = server.output_files(entry)

Standard library only; nothing of ComfyUI is imported.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.support.environment import ROOT, Environment
from scripts.support.guard import guard
from scripts.support.websocket import Message, Messages

HOST = "127.0.0.1"
PACK = ["__init__.py", "pyproject.toml", "framepack_core", "nodes", "web", "example_workflows"]
START_TIMEOUT = 180

Prompt = dict[str, Any]
Json = dict[str, Any]


class ServerError(Exception):
    """The server did not start, or a run failed in it."""


class PromptRefused(ServerError):
    """ComfyUI's validation refused a prompt; `details` is its answer, with `error` and `node_errors`."""

    def __init__(self, details: Json) -> None:
        super().__init__(json.dumps(details, indent=1))
        self.details = details


class RunFailed(ServerError):
    """A node raised an error, or the run was interrupted; `entry` is from the history."""

    def __init__(self, entry: Json) -> None:
        super().__init__(json.dumps(entry["status"], indent=1))
        self.entry = entry

    @property
    def message(self) -> str:
        """The message of the node's exception."""
        errors = (data["exception_message"] for kind, data in self._events() if kind == "execution_error")
        return next(errors, "")

    @property
    def interrupted(self) -> bool:
        return any(kind == "execution_interrupted" for kind, _ in self._events())

    def _events(self) -> list[tuple[str, Json]]:
        return [(kind, data) for kind, data in self.entry["status"]["messages"]]


class Server:
    """ComfyUI in its own folder `base`, with copies of this pack and of other `packs` (folders) in its custom_nodes.

    It ends with this process, even if that is killed. A `temporary` `base` is removed in the end, however that comes.
    """

    def __init__(
        self,
        environment: Environment,
        base: Path,
        models: Path | None = None,
        *,
        gpu: bool = False,
        flags: Sequence[str] = (),
        packs: Sequence[Path] = (),
        temporary: bool = False,
    ) -> None:
        self.environment = environment
        self.base = base
        self.log = base / "comfyui.log"
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._models = models or base / "models"
        self._flags = [*([] if gpu else ["--cpu"]), *flags]
        self._packs = packs
        self._temporary = temporary
        self._client_id = uuid.uuid4().hex
        self._process: subprocess.Popen
        self._guard: subprocess.Popen

    def __enter__(self) -> Server:
        install_custom_nodes(self.base / "custom_nodes", self._packs)
        for folder in (self._models, self.base / "input", self.base / "output"):
            folder.mkdir(parents=True, exist_ok=True)
        for example in (self.environment.comfyui / "input").glob("example.*"):
            shutil.copy2(example, self.base / "input")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self.base, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._guard = guard(self.pid, [self.base] if self._temporary else [])
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End the server as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._temporary:
            self._guard.communicate()  # it does the rest, even if this process is ended meanwhile
            self._process.wait()
            return
        self._guard.kill()
        self._guard.communicate()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # Runs

    def queue(self, prompt: Prompt) -> str:
        """Queue an API prompt and return its id. Raises PromptRefused with what the validation found."""
        return self._post("/prompt", {"prompt": prompt, "client_id": self._client_id})["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 300, on_message: Callable[[Message], None] | None = None) -> Json:
        """The history entry of a queued prompt once it has succeeded. Raises RunFailed if it fails."""
        with self._messages() as messages:
            return self._follow(messages, prompt_id, timeout, on_message)

    def run(self, prompt: Prompt, timeout: float = 300, on_message: Callable[[Message], None] | None = None) -> Json:
        """Queue and wait. `on_message` receives every message of the run: progress, executed, previews, ..."""
        with self._messages() as messages:
            return self._follow(messages, self.queue(prompt), timeout, on_message)

    def interrupt(self) -> None:
        """Stop the running prompt, as the front end's cancel button does."""
        self._post("/interrupt", {})

    def history(self, prompt_id: str) -> Json | None:
        return self._get(f"/history/{prompt_id}").get(prompt_id)

    def object_info(self) -> Json:
        return self._get("/object_info")

    def set_setting(self, name: str, value: Any) -> None:
        """Set one of the front end's settings, which the server stores."""
        self._post(f"/settings/{name}", value)

    # Files

    def offer(self, name: str, workflow: Json) -> str:
        """Put a workflow among the pack's templates and return the address that opens it. The name is one word."""
        self._template(name).write_text(json.dumps(workflow), encoding="utf-8")
        return f"{self.url}/?template={name}&source=framepack"

    def withdraw(self, name: str) -> None:
        """Remove an offered workflow."""
        self._template(name).unlink()

    def upload_image(self, path: Path) -> str:
        """Put an image into the input folder, as the front end does, and return its name for LoadImage."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self._post("/upload/image", body, f"multipart/form-data; boundary={boundary}")["name"]

    def output_files(self, entry: Json) -> list[Path]:
        """The files that a run saved or previewed, in the order of its nodes."""
        results = [
            result
            for node in entry["outputs"].values()
            for listed in node.values()
            for result in listed
            if isinstance(result, dict) and "filename" in result
        ]
        return [self.base / result["type"] / result["subfolder"] / result["filename"] for result in results]

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    # Inside

    def _command(self) -> list[str]:
        folders = ["--base-directory", str(self.base), "--models-directory", str(self._models)]
        alone = ["--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:"]
        main = str(self.environment.comfyui / "main.py")
        return [str(self.environment.python), main, "--port", str(self.port), *folders, *alone, *self._flags]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"ComfyUI stopped while starting:\n{self.log_tail()}")
            try:
                self._get("/system_stats")
                return
            except OSError:
                time.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer within {START_TIMEOUT} s:\n{self.log_tail()}")

    def _template(self, name: str) -> Path:
        return self.base / "custom_nodes" / "framepack" / "example_workflows" / f"{name}.json"

    def _messages(self) -> Messages:
        return Messages(HOST, self.port, self._client_id)

    def _follow(self, messages: Messages, prompt_id: str, timeout: float, on_message: Callable[[Message], None] | None) -> Json:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            message = self._receive(messages)
            if message and on_message:
                on_message(message)
            if message and not _may_end_a_run(message):
                continue
            if entry := self.history(prompt_id):
                while on_message and message is None and (late := self._receive(messages)):
                    on_message(late)  # a busy server may answer first and send its messages afterwards
                return _succeeded(entry)
        self.interrupt()
        raise ServerError(f"prompt {prompt_id} did not finish within {timeout} s:\n{self.log_tail()}")

    def _receive(self, messages: Messages) -> Message | None:
        try:
            return messages.receive(timeout=1)
        except ConnectionError as error:
            raise ServerError(f"ComfyUI is gone ({error}):\n{self.log_tail()}") from error

    def _get(self, path: str) -> Json:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def _post(self, path: str, content: Any, content_type: str = "application/json") -> Json:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "{}")
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRefused(json.load(error)) from None


def _may_end_a_run(message: Message) -> bool:
    """After such a message the history has the entry, at once or a moment later."""
    return message["type"] in ("status", "execution_success", "execution_error", "execution_interrupted")


def _succeeded(entry: Json) -> Json:
    if entry["status"]["status_str"] != "success":
        raise RunFailed(entry)
    return entry


def install_custom_nodes(folder: Path, packs: Sequence[Path]) -> None:
    """Install copies, because links need permissions on Windows and the checkout may have any name."""
    if folder.exists():
        shutil.rmtree(folder)
    no_caches = shutil.ignore_patterns("__pycache__")
    for pack in packs:
        shutil.copytree(pack, folder / pack.name, ignore=no_caches)
    for source in map(ROOT.joinpath, PACK):
        target = folder / "framepack" / source.name
        if source.is_dir():
            shutil.copytree(source, target, ignore=no_caches)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
