"""ComfyUI: where it is, its version, whether the pack loads in it, its attention and its flags."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from framepack_core.comfyui import private
from scripts.support.doctor.findings import Finding
from scripts.support.environment import ROOT

OLDEST = (0, 30, 0)
UPDATE = "update ComfyUI to 0.30.0 or newer"
ESSENTIAL = (private.MODELS, private.SAMPLERS)
ATTENTION = {
    "attention_pytorch": "pytorch",
    "attention_sage": "sage",
    "attention_flash": "flash",
    "attention_xformers": "xformers",
    "attention_split": "split",
    "attention_sub_quad": "sub-quadratic",
}

# Flags that decide speed, memory or pixels. Others, such as addresses and folders, are nobody's business.
FLAGS = re.compile(
    r"cpu|.*vram.*|gpu_only|fast|fast_disk|deterministic|use_.*_attention|disable_xformers|.*upcast_attention|force_fp\d+"
    r"|.*_(unet|vae|text_enc)|.*(mmap|smart_memory|pinned_memory|async_offload|cuda_malloc)|directml|force_channels_last"
    r"|cache_.*|high_ram|supports_fp8_compute|fp16_intermediates|.*triton_backend"
)
HARMFUL = {
    "fp16_unet": "FramePack's values exceed fp16, and frames may be black: leave out --fp16-unet and --force-fp16",
    "fp16_vae": "frames may be black: leave out --fp16-vae",
    "cpu_vae": "decoding on the CPU takes minutes a section: leave out --cpu-vae, decoding fits the card by itself",
    "cpu": "leave out --cpu to use the card",
}


def place(comfyui: Path, started: BaseException | None) -> Finding:
    """Whether ComfyUI has started in this process, up to its server."""
    if started is None:
        return Finding("ComfyUI", f"starts, in {comfyui}")
    if isinstance(started, ModuleNotFoundError):
        remedy = "install ComfyUI's requirements with this Python: python -m pip install -r ComfyUI/requirements.txt"
    elif isinstance(started, SystemExit):
        remedy = "a flag that was passed after -- is unknown to ComfyUI, or what it needs is not installed: see the lines above"
    else:
        remedy = "start ComfyUI itself, look for the first error in its log, and attach that log to an issue"
    return Finding("ComfyUI", f"does not start: {type(started).__name__}: {started}", "fault", remedy)


def version(comfyui: Path) -> Finding:
    """Read from a file, so that it is known even if ComfyUI does not start."""
    text = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    found = re.search(r"__version__ = \"([^\"]+)\"", text)
    if found is None:
        return Finding("ComfyUI's version", "unknown", "warning", UPDATE)
    numbers = tuple(map(int, re.findall(r"\d+", found[1])[:3]))
    return Finding("ComfyUI's version", found[1]) if numbers >= OLDEST else Finding(
        "ComfyUI's version", f"{found[1]}, but FramePack needs 0.30.0", "fault", UPDATE
    )  # fmt: skip


def custom_nodes() -> list[Path]:
    """ComfyUI's folders of packs. ComfyUI must be loaded."""
    import folder_paths

    return [Path(folder) for folder in folder_paths.get_folder_paths("custom_nodes")]


def written_to() -> dict[str, Path]:
    """The folders that ComfyUI and the pack write to. ComfyUI must be loaded."""
    import folder_paths

    from framepack_core.comfyui.sampling import kept

    output, temporary = folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    return {"output": Path(output), "temp": Path(temporary), "kept sections": kept.folder()}


def installed(custom_nodes: Iterable[Path], pack: Path = ROOT) -> Finding:
    """Whether ComfyUI finds this pack, and only once."""
    folders = [entry for folder in custom_nodes if folder.is_dir() for entry in folder.iterdir() if is_pack(entry)]
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        return Finding("the pack", f"is in custom_nodes {len(folders)} times: {names}", "warning", "keep one of the folders")
    if not folders:
        return Finding("the pack", f"{pack} is not in custom_nodes", "warning", "move or clone the pack into it")
    if folders[0].resolve() != pack.resolve():
        return Finding("the pack", f"custom_nodes has another copy: {folders[0].name}", "warning", "run that copy's doctor")
    return Finding("the pack", f"custom_nodes/{folders[0].name}")


def is_pack(folder: Path) -> bool:
    return (folder / "framepack_core").is_dir() and not folder.name.endswith(".disabled")


def symbols(require: Callable[[str], object] = private.require) -> Iterator[Finding]:
    """Whether this ComfyUI has every private symbol that the pack stands on."""
    missing = 0
    for name, symbol in private.SYMBOLS.items():
        try:
            require(name)
        except private.Missing as error:
            missing += 1
            essential = any(part in symbol.serves for part in ESSENTIAL)
            remedy = "update FramePack, or go back to an earlier ComfyUI"
            yield Finding("private symbol", str(error), "fault" if essential else "warning", remedy)
    if not missing:
        yield Finding("private symbols", f"all {len(private.SYMBOLS)} are there")


def nodes(pack: Path = ROOT) -> Finding:
    """Load the pack as ComfyUI does, and count its nodes. ComfyUI must be loaded.

    That is a second copy of the code in this process. ComfyUI goes on recognising models with the first.
    """
    comfyui: Any = importlib.import_module("nodes")
    before, models = set(comfyui.NODE_CLASS_MAPPINGS), list(private.supported_models)
    with Lines() as lines:
        loaded = asyncio.run(comfyui.load_custom_node(str(pack)))
    private.supported_models[:] = models
    found = sorted(set(comfyui.NODE_CLASS_MAPPINGS) - before)
    ours = sys.modules.get(str(pack).replace(".", "_x_") + ".nodes")
    expected = sum(map(len, ours.NODES.values())) if ours else 0
    if loaded and len(found) == expected:
        return Finding("nodes", f"all {expected} load: {', '.join(found)}")
    why = "; ".join(lines.texts) or "ComfyUI gave no reason"
    value = f"{len(found)} of {expected or 'all'} load ({', '.join(found)}): {why}"
    return Finding("nodes", value, "fault", "see the private symbols in this report; if none is missing, attach it to an issue")


def attention() -> Finding:
    """The attention that ComfyUI has chosen. ComfyUI must be loaded."""
    name = str(private.optimized_attention.__name__)
    found = ATTENTION.get(name, name)
    if found in ("split", "sub-quadratic") and not on_the_cpu():
        return Finding("attention", found, "warning", "it is slow: start ComfyUI with --use-pytorch-cross-attention")
    return Finding("attention", found)


def on_the_cpu() -> bool:
    import comfy.model_management as management

    return management.is_device_cpu(management.get_torch_device())


def flags(given: Sequence[str]) -> Iterator[Finding]:
    """Those of the flags that were passed to the doctor that matter here. ComfyUI must be loaded."""
    from comfy.cli_args import parser

    defaults = vars(parser.parse_args([]))
    chosen = {name: value for name, value in vars(parser.parse_args(given)).items() if value != defaults[name]}
    yield from judge_flags({name: value for name, value in chosen.items() if FLAGS.fullmatch(name)}, bool(given))


def judge_flags(chosen: dict[str, object], given: bool) -> Iterator[Finding]:
    if not given:
        remedy = "if you start ComfyUI with flags, pass them too: python3 scripts/doctor.py -- --lowvram"
        yield Finding("flags", "none passed after --", remedy=remedy)
        return
    shown = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in chosen.items() if value]
    yield Finding("flags", ", ".join(sorted(shown)) or "none that matter here")
    for name, remedy in HARMFUL.items():
        if chosen.get(name):
            yield Finding("flag", f"--{name.replace('_', '-')}", "warning", remedy)


class Lines(logging.Handler):
    """The warnings and errors that are logged in the block."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def __enter__(self) -> Lines:
        root = logging.getLogger()
        self._level_before = root.level
        root.setLevel(logging.WARNING)
        root.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level_before)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
