"""The model files: those that the example workflows link to, and every checkpoint of FramePack and Helios, whole or cut off."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from framepack_core.weights.stored import Header, Unreadable, read_header, require_whole
from scripts.support.doctor.findings import Finding, gigabytes
from scripts.support.doctor.headers import FAMILIES, family, formats, gguf_types, naming
from scripts.support.environment import ROOT

KINDS = ("diffusion_models", "diffusers", "text_encoders", "clip_vision", "vae")
TRANSFORMERS = ("diffusion_models", "diffusers")
SUFFIXES = (".safetensors", ".sft", ".gguf")
INDEX = ".safetensors.index.json"
UNFINISHED = (".part", ".crdownload", ".download", ".tmp", ".partial", ".aria2")
AGAIN = "download it again, and compare its size with that on the page"

Folders = Mapping[str, Sequence[Path]]  # of each kind


@dataclass(frozen=True)
class Linked:
    """A file that a family's example workflows link to, and the kind of folder that it belongs into."""

    name: str
    kind: str
    url: str
    family: str = "FramePack"


@dataclass(frozen=True)
class File:
    """A model file or a folder of shards that is there; `name` is relative to its kind's folder, as ComfyUI lists it."""

    path: Path
    kind: str
    name: str


def linked_files(workflows: Path = ROOT / "example_workflows") -> list[Linked]:
    found = {}
    for name in FAMILIES:
        for workflow in sorted(workflows.glob(f"{name} *.json")):
            for node in json.loads(workflow.read_text(encoding="utf-8"))["nodes"]:
                for model in node["properties"].get("models", []):
                    found[model["name"]] = Linked(model["name"], model["directory"], model["url"], name)
    return list(found.values())


def model_folders() -> dict[str, list[Path]]:
    """ComfyUI's folders of each kind, those of extra_model_paths.yaml among them. `folder_paths` must be importable."""
    import folder_paths

    return {kind: [Path(folder) for folder in folder_paths.get_folder_paths(kind)] for kind in KINDS}


def all_files(folders: Folders) -> list[File]:
    """Every file below the folders, once. Links to folders are followed, as ComfyUI does."""
    return [
        File(Path(place) / name, kind, (Path(place) / name).relative_to(folder).as_posix())
        for kind, roots in folders.items()
        for folder in dict.fromkeys(roots)
        for place, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
    ]


# The files beside the transformer


def companions(linked: Iterable[Linked], files: Sequence[File]) -> Iterator[Finding]:
    """Text encoders, vision model and VAE, under the names that the example workflows expect.

    They are those of the families whose transformers are there, and FramePack's if there are none.
    """
    here = {family_of(file) for file in files if file.kind in TRANSFORMERS} & set(FAMILIES) or {"FramePack"}
    for wanted in linked:
        if wanted.kind not in TRANSFORMERS and wanted.family in here:
            yield companion(wanted, files)


def family_of(file: File) -> str | None:
    """None for what is of no family, or cannot be read."""
    try:
        if file.name.endswith(INDEX):
            return family(weight_map(file.path) or {})
        if file.path.suffix == ".gguf":
            return family(gguf_types(file.path)[0])
        return family(read_header(file.path).tensors) if file.path.suffix in SUFFIXES else None
    except (Unreadable, ImportError):
        return None


def companion(wanted: Linked, files: Sequence[File]) -> Finding:
    what, folder = f"{wanted.kind}/{wanted.name}", f"models/{wanted.kind}"
    here = [file for file in files if file.path.name == wanted.name]
    right = [file for file in here if file.kind == wanted.kind]
    if right:
        return whole(what, right[0].path)
    if here:
        return Finding(what, f"is in {here[0].kind}", "warning", f"move it to {folder}")
    similar = [file for file in files if is_similar(file.path.name, wanted.name)]
    if similar:
        found = similar[0]
        if found.path.name.endswith(UNFINISHED):
            return Finding(what, f"{found.name} is an unfinished download", "warning", AGAIN)
        return Finding(what, f"is called {found.name}, in {found.kind}", "warning", f"rename it, and move it to {folder}")
    return Finding(
        what, "not there", "warning", f"download {wanted.url} into {folder}, or choose another such file in the workflow"
    )


def is_similar(name: str, wanted: str) -> bool:
    """What a browser makes of a name: copies with a number, unfinished downloads, another case."""
    stem, suffix = re.escape(wanted.rpartition(".")[0]), re.escape(wanted.rpartition(".")[2])
    endings = "|".join(map(re.escape, UNFINISHED))
    return re.fullmatch(rf"{stem}( ?\(\d+\))?\.{suffix}({endings})?", name, re.IGNORECASE) is not None


def whole(what: str, path: Path) -> Finding:
    try:
        require_whole(path, read_header(path))
    except Unreadable as error:
        return Finding(what, str(error), "fault", AGAIN)
    return Finding(what, gigabytes(path.stat().st_size))


# Checkpoints


def checkpoints(linked: Iterable[Linked], files: Sequence[File]) -> Iterator[Finding]:
    """Every transformer of a family that is there, and whether it can be loaded."""
    shards = set()
    found, others = [], 0
    for file in files:
        if file.kind in TRANSFORMERS and file.name.endswith(INDEX):
            folder = file.path.parent
            shards |= {folder / shard for shard in shard_names(file.path)}
            found += sharded(file)
    for file in files:
        if file.kind in TRANSFORMERS and file.path.suffix in SUFFIXES and file.path not in shards:
            finding = gguf(file) if file.path.suffix == ".gguf" else single(file)
            found += [finding] if finding else []
            others += finding is None
    yield from found
    yield from (misplaced(file) for file in files if file.kind not in TRANSFORMERS and is_misplaced(file))
    if not any(finding.status == "ok" for finding in found):
        yield from absent(linked, files)
    if others:
        yield Finding("other models", f"{others} beside those of FramePack and Helios, which were not looked at")


def absent(linked: Iterable[Linked], files: Sequence[File]) -> Iterator[Finding]:
    """There is no transformer that can be loaded: an unfinished one, or where to get one."""
    wanted = [file for file in linked if file.kind in TRANSFORMERS]
    begun = [companion(file, files) for file in wanted if any(is_similar(other.path.name, file.name) for other in files)]
    yield from (finding for finding in begun if finding.status == "warning")
    if not begun:
        urls = " or ".join(file.url for file in wanted)
        yield Finding("FramePack checkpoint", "not there", "warning", f"download {urls} into models/diffusion_models")


def single(file: File) -> Finding | None:
    """None for a readable file that is of no family."""
    what = f"{file.kind}/{file.name}"
    try:
        header = read_header(file.path)
        found = family(header.tensors)
        if found is None:
            return misnamed(what, file, header)
        require_whole(file.path, header)
    except Unreadable as error:
        return Finding(what, str(error), "fault", AGAIN)
    kinds = ", ".join(formats(file.path, header))
    return Finding(what, f"{found}, {naming(header.tensors)}, {kinds}, {gigabytes(file.path.stat().st_size)}")


def misnamed(what: str, file: File, header: Header) -> Finding | None:
    claimed = next((name for name in FAMILIES if name.lower() in file.name.lower()), None)
    if claimed is None:
        return None
    first = next(iter(header.tensors), "nothing")
    return Finding(
        what, f"is not a {claimed} transformer: it begins with {first}", "warning", "choose another file, or move it"
    )


def gguf(file: File) -> Finding | None:
    what = f"{file.kind}/{file.name}"
    try:
        tensors, types = gguf_types(file.path)
    except ImportError:
        return Finding(what, "needs the gguf package", "warning", "python -m pip install gguf, with ComfyUI's Python")
    except Unreadable as error:
        return Finding(what, str(error), "fault", AGAIN)
    found = family(tensors)
    if found is None:
        return None
    return Finding(what, f"{found}, GGUF {', '.join(types[:3])}, {gigabytes(file.path.stat().st_size)}")


def sharded(index: File) -> list[Finding]:
    """A folder of shards: all of them there, whole, and with all weights of the index. Other models' folders are left out."""
    folder = index.path.parent
    what = f"{index.kind}/{Path(index.name).parent.as_posix()}/"
    wanted = weight_map(index.path)
    if wanted is None:
        return [Finding(what, f"{index.path.name} is damaged", "fault", "download the folder again")]
    found = family(wanted)
    if found is None:
        return []
    missing = [shard for shard in sorted(set(wanted.values())) if not (folder / shard).is_file()]
    if missing:
        value = f"lacks {len(missing)} of {len(set(wanted.values()))} shards: {', '.join(missing)}"
        return [Finding(what, value, "fault", "download them into that folder")]
    headers: dict[str, Header] = {}
    for shard in sorted(set(wanted.values())):
        try:
            headers[shard] = read_header(folder / shard)
            require_whole(folder / shard, headers[shard])
        except Unreadable as error:
            return [Finding(what, f"{shard} {error}", "fault", f"download {shard} again")]
    lost = sorted(key for key, shard in wanted.items() if key not in headers[shard].tensors)
    if lost:
        return [Finding(what, f"lacks {len(lost)} weights of its index, first {lost[0]}", "fault", "download the folder again")]
    size = sum((folder / shard).stat().st_size for shard in headers)
    kinds = sorted({kind for shard, header in headers.items() for kind in formats(folder / shard, header)})
    return [Finding(what, f"{found}, {naming(wanted)}, {', '.join(kinds)}, {len(headers)} shards, {gigabytes(size)}")]


def weight_map(index: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError):
        return None


def shard_names(index: Path) -> set[str]:
    return set((weight_map(index) or {}).values())


def is_misplaced(file: File) -> bool:
    """Whether a checkpoint lies where no loader of transformers looks."""
    return file.path.suffix in (".safetensors", ".sft") and family_of(file) is not None


def misplaced(file: File) -> Finding:
    what, found = f"{file.kind}/{file.name}", f"is a {family_of(file)} transformer"
    return Finding(what, found, "warning", "move it to models/diffusion_models")
