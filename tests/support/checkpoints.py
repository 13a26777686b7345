"""Checkpoint files, whole and in shards, written for a test."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

INDEX = "diffusion_pytorch_model.safetensors.index.json"

Weights = dict[str, Tensor]


def save(weights: Weights, folder: Path, name: str = "FramePackI2V.safetensors", metadata: dict | None = None) -> str:
    save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / name, metadata)
    return str(folder / name)


def save_shards(weights: Weights, folder: Path) -> str:
    ordered = sorted(weights)
    shards = {f"model-0000{i + 1}-of-00003.safetensors": ordered[i::3] for i in range(3)}
    for shard, members in shards.items():
        save({name: weights[name] for name in members}, folder, shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return str(folder)
