"""Which modules may import which, and what importing the pack costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "framepack_core"
ADAPTER = CORE / "comfyui"

PACK = [ROOT / "__init__.py", *sorted(CORE.rglob("*.py")), *sorted((ROOT / "nodes").rglob("*.py"))]
FREE = [path for path in PACK if ADAPTER not in path.parents and ROOT / "nodes" not in path.parents]

PRIVATE = ADAPTER / "private.py"
PRIVATE_MODULES = ("comfy.conds", "comfy.latent_formats", "comfy.ldm", "comfy.model_base", "comfy.ops",
                   "comfy.patcher_extension", "comfy.quant_ops", "comfy.sd1_clip", "comfy.supported_models", "comfy.taesd",
                   "comfy_api.feature_flags", "comfy_execution", "latent_preview", "protocol")  # fmt: skip

DEMO = CORE / "demo"
SERVES_THE_DEMO = {
    ADAPTER / "demo.py",
    ROOT / "nodes" / "demo.py",
    ROOT / "nodes" / "image.py",
    CORE / "training" / "encoders.py",
}

COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfy_kitchen", "folder_paths", "latent_preview",
           "node_helpers", "nodes", "execution", "server"}  # fmt: skip

TRAINING = CORE / "training"
FOR_TRAINING = {"accelerate", "diffusers", "peft", "tqdm", "transformers"}

TOP_LEVEL = """
import importlib.util, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("pack", {path!r}, submodule_search_locations=[{root!r}])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
{more}
sys.stdout.write(" ".join(set(sys.modules) - before))
"""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import in a file, including those inside functions."""
    yield from imports_of(ast.parse(path.read_text(encoding="utf-8")))


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module or ''}.{alias.name}".lstrip(".")) for alias in node.names)


def run_fresh(more: str = "") -> set[str]:
    """The modules that importing the pack's root, and `more`, loads in a new interpreter."""
    script = TOP_LEVEL.format(path=str(ROOT / "__init__.py"), root=str(ROOT), more=more)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT.parent, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_files_that_are_checked_are_those_of_the_pack():
    names = {name(path) for path in PACK}

    assert {"__init__.py", "framepack_core/plan.py", "framepack_core/comfyui/model/framepack.py", "nodes/__init__.py"} <= names
    assert "framepack_core/plan.py" in map(name, FREE)
    assert not any("comfyui" in name(path) for path in FREE)


@pytest.mark.parametrize("path", FREE, ids=name)
def test_the_core_knows_neither_comfyui_nor_its_adapter(path):
    absolute = {module.split(".")[0] for level, module in imports(path) if level == 0}
    relative = {module.split(".")[0] for level, module in imports(path) if level > 0}

    assert absolute.isdisjoint(COMFYUI)
    if path != ROOT / "__init__.py":
        assert relative.isdisjoint({"comfyui", "nodes"})


@pytest.mark.parametrize("path", PACK, ids=name)
def test_imports_within_the_pack_are_relative_and_stay_in_it(path):
    depth = len(path.relative_to(ROOT).parts)

    for level, module in imports(path):
        if level == 0:
            assert module.split(".")[0] not in ("framepack", "framepack_core")
        assert level <= depth


@pytest.mark.parametrize("path", sorted(ADAPTER.rglob("*.py")), ids=name)
def test_the_adapter_does_not_know_the_nodes(path):
    assert not any(module.split(".")[0] == "nodes" for _, module in imports(path))


@pytest.mark.parametrize("path", PACK, ids=name)
def test_nothing_that_a_user_runs_imports_experiments_scripts_or_tests(path):
    assert not {"experiments", "scripts", "tests", "support"} & {module.split(".")[0] for _, module in imports(path)}


@pytest.mark.parametrize("path", sorted((ROOT / "scripts" / "support").rglob("*.py")), ids=name)
def test_experiments_are_run_by_commands_and_imported_by_nothing_else(path):
    assert "experiments" not in {module.split(".")[0] for _, module in imports(path)}


@pytest.mark.parametrize("path", [path for path in PACK if DEMO not in path.parents and path not in SERVES_THE_DEMO], ids=name)
def test_only_what_serves_the_demo_knows_it(path):
    assert not any("demo" in module.split(".")[:-1] for _, module in imports(path) if not module.startswith("comfyui.demo"))


@pytest.mark.parametrize("path", [path for path in PACK if path != PRIVATE], ids=name)
def test_private_symbols_of_comfyui_are_looked_up_in_one_file(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    annotations = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for node in annotations:
        tree.body.remove(node)
    symbols = private_symbols()

    imported = [module for _, module in imports_of(tree)]
    reached = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    assert not [module for module in imported if module.startswith(PRIVATE_MODULES)]
    assert not symbols & (reached | set(imported)) - annotated(tree)


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").glob("*.py")), ids=name)
def test_nodes_hold_no_arithmetic(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))

    assert not any(isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr) for node in ast.walk(tree))
    assert not {"torch", "numpy", "math"} & {module.split(".")[0] for _, module in imports(path)}


def private_symbols() -> set[str]:
    """`module.name` of every entry in private.py, read without importing it."""
    tree = ast.parse(PRIVATE.read_text(encoding="utf-8"))
    constants = {node.targets[0].id: node.value.value for node in tree.body
                 if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)}  # fmt: skip
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Symbol"]
    places = [[constants.get(getattr(arg, "id", ""), getattr(arg, "value", None)) for arg in call.args[:2]] for call in calls]
    return {f"{module}.{symbol}" for module, symbol in places if isinstance(module, str) and isinstance(symbol, str)}


def annotated(tree: ast.Module) -> set[str]:
    """What only appears in annotations, which nothing evaluates."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hints = [node.returns, *(arg.annotation for arg in (*node.args.args, *node.args.kwonlyargs))]
        else:
            hints = [node.annotation] if isinstance(node, ast.AnnAssign) else []
        for hint in filter(None, hints):
            found |= {ast.unparse(part) for part in ast.walk(hint) if isinstance(part, ast.Attribute)}
    return found


def test_there_are_private_symbols_to_look_for():
    assert {"comfy.ldm.hunyuan_video.model.HunyuanVideo", "comfy.utils.PROGRESS_BAR_ENABLED"} <= private_symbols()


@pytest.mark.parametrize("path", [path for path in PACK if TRAINING not in path.parents], ids=name)
def test_inference_needs_nothing_of_training(path):
    modules = [module.split(".")[0] for _, module in imports(path)]

    assert not {*FOR_TRAINING, "training"} & set(modules)


@pytest.mark.parametrize("path", PACK, ids=name)
def test_nothing_is_printed(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))

    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]

    assert not any(isinstance(function, ast.Name) and function.id in ("print", "pprint") for function in called)


def test_importing_the_pack_loads_nothing_else():
    """So that it costs ComfyUI no time before it asks for the nodes."""
    assert run_fresh() == {"pack"}


@pytest.mark.parametrize("module", ["layout", "plan"])
def test_planning_needs_no_torch(module):
    modules = run_fresh(f"import pack.framepack_core.{module}")

    assert f"pack.framepack_core.{module}" in modules
    assert not modules & {"torch", "numpy"}


def test_the_rest_of_the_core_needs_no_comfyui():
    rest = [path.stem for path in sorted(CORE.glob("*.py")) if path.stem != "__init__"]
    modules = run_fresh("\n".join(f"import pack.framepack_core.{module}" for module in rest))

    assert "pack.framepack_core.packing" in modules
    assert modules.isdisjoint(COMFYUI)
