"""What pip makes of this repository: every extra, in a fresh virtual environment, does what it is for.

uv does the installing, since its cache makes six environments a matter of seconds. torch is pinned to the version in the
tests' own environment, which is in that cache; everything else is resolved anew.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts.support.environment import ROOT, cache_directory, venv_python

pytestmark = pytest.mark.slow

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_COPIED = (".*", "venv", "output", "build", "*.egg-info", "__pycache__")
FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier() and path.name[0] != "_")
TRAINING = sorted(path.stem for path in (ROOT / "framepack_core" / "training").glob("*.py") if not path.stem.startswith("__"))

WITHOUT_COMFYUI = """
import importlib, sys
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
        print(module)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] not in ("comfy", "comfy_kitchen", "folder_paths"):
            raise
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment with this pack, and the folder that it was installed from."""

    folder: Path
    checkout: Path

    @property
    def python(self) -> Path:
        return venv_python(self.folder / "venv")

    def create(self) -> None:
        uv("venv", "--python", sys.executable, self.folder / "venv")

    def install(self, extra: str) -> None:
        held = self.folder / "held.txt"
        held.write_text(f"torch=={version('torch').split('+')[0]}\n")
        uv("pip", "install", "--python", self.python, "-c", held, "-e", f"{self.checkout}[{extra}]")

    def run(self, *arguments: str, inside: bool = False) -> str:
        """Run Python in a folder outside the checkout, or `inside` it, and return its output."""
        done = subprocess.run(
            [self.python, *arguments], cwd=self.checkout if inside else self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def imports(self, modules: list[str], inside: bool = False) -> None:
        self.run("-c", "\n".join(f"import {module}" for module in modules), inside=inside)

    def found(self, names: list[str]) -> list[str]:
        """Those of the names that can be imported in any folder."""
        script = "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))"
        return json.loads(self.run("-c", script, *names))


def uv(*arguments: str | Path) -> str:
    return call([sys.executable, "-m", "uv", *arguments])


def call(command: list[str | Path]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy, since building a package leaves files in the folder it is built from."""
    copy = tmp_path_factory.mktemp("install") / "framepack"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return copy


@pytest.fixture
def fresh(checkout: Path) -> Iterator[Installed]:
    """Removed after the test: it holds gigabytes, which uv links from its cache if both are on one disk."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="install-", ignore_cleanup_errors=True) as folder:
        yield Installed(Path(folder), checkout)


def trains(installed: Installed) -> None:
    installed.imports([f"framepack_core.training.{module}" for module in TRAINING])
    assert "command ..." in installed.run("-m", "framepack_core.training", "--help")
    assert "train [-h]" in installed.run("-m", "framepack_core.training", "train", "--help")


def reads_gguf(installed: Installed) -> None:
    installed.imports(["gguf"])
    assert installed.found(["torch", "numpy"]) == ["numpy"]


def signs(installed: Installed) -> None:
    installed.imports(["c2pa", "framepack_core.media.signing"])
    assert installed.found(["torch", "numpy"]) == []


def experiments(installed: Installed) -> None:
    """Each module can be imported unless ComfyUI is missing for it; nothing else is missing."""
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.py") if path.stem != "__main__")
    imported = installed.run("-c", WITHOUT_COMFYUI, *(".".join(file.with_suffix("").parts) for file in files), inside=True)

    assert {"experiments.study.plots", "experiments.measures.motions", "experiments.making.clips"} <= set(imported.split())


def runs_tests(installed: Installed) -> None:
    """All unit tests can be collected without ComfyUI and its requirements, and some are run."""
    assert " passed" in installed.run("-m", "pytest", "-q", "tests/unit", "-k", "test_plan", inside=True)


def develops(installed: Installed) -> None:
    for tool in ("ruff", "basedpyright", "codespell_lib", "pre_commit"):
        installed.run("-m", tool, "--version")


PROMISES: dict[str, Callable[[Installed], None]] = {
    "train": trains,
    "gguf": reads_gguf,
    "c2pa": signs,
    "experiments": experiments,
    "test": runs_tests,
    "dev": develops,
}


def test_each_extra_is_tested_and_a_builder_is_named():
    """Without [build-system], pip uses whatever setuptools there is, however old."""
    assert PYPROJECT["project"]["optional-dependencies"].keys() == PROMISES.keys()
    assert PYPROJECT["build-system"]["build-backend"] == "setuptools.build_meta"


@pytest.mark.parametrize("extra", PROMISES)
@pytest.mark.slow
def test_an_extra_does_what_it_is_for_and_brings_no_other_package_of_ours(fresh, extra):
    fresh.create()
    fresh.install(extra)

    PROMISES[extra](fresh)

    assert fresh.found(FOLDERS) == ["framepack_core"]


def test_the_plain_package_plans_and_has_the_demo_s_weights_and_needs_nothing_else(fresh, checkout):
    """With pip itself, as a package and not as a link to the checkout."""
    call([sys.executable, "-m", "venv", fresh.folder / "venv"])
    call([fresh.python, "-m", "pip", "install", checkout])
    shutil.rmtree(checkout / "build")

    fresh.imports(["framepack_core.plan"])

    assert fresh.found([*FOLDERS, "torch", "numpy"]) == ["framepack_core"]
    listed = fresh.run("-c", "import importlib.metadata as m; print(*m.distribution('framepack').files, sep='\\n')").split()
    folders = {name.split("/")[0] for name in listed}
    assert folders == {"framepack_core", f"framepack-{PYPROJECT['project']['version']}.dist-info"}
    weights = {path.relative_to(ROOT).as_posix() for path in (ROOT / "framepack_core/demo/weights").glob("*.safetensors")}
    assert weights and weights <= set(listed)


def test_a_torch_that_is_there_stays(checkout):
    """The tests' environment has torch, as ComfyUI's does."""
    for extra in ("train", "experiments"):
        changes = uv("pip", "install", "--dry-run", "--python", sys.executable, "-e", f"{checkout}[{extra}]").splitlines()

        assert any("framepack" in line for line in changes)
        assert not [line for line in changes if line.strip().startswith(("+ torch", "- torch"))]
