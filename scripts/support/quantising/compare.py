"""Runs a small checkpoint through the whole graph in every format: memory, and the error relative to fp32.

`python3 scripts/quantize.py --compare [CHECKPOINT]` runs this; its arguments are ComfyUI's folder and the checkpoint.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from scripts.support.pack import load_comfyui
from scripts.support.quantising.convert import FORMAT_NAMES, convert

GGUF_TYPES = ("Q8_0", "Q5_0", "Q4_0")
SECTIONS, STEPS, SEED = 2, 3, 12


def main() -> None:
    torch.set_num_threads(1)
    load_comfyui(Path(sys.argv[1]))
    video = graph()
    expected = video(load(sys.argv[2], torch.float32)).float()
    print("| format | blocks in memory | file | error of the latents |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(Path(sys.argv[2]), Path(folder)):
            model = load(str(path))
            error = ((video(model).float() - expected).norm() / expected.norm()).item()
            memory, file = (f"{size / 1e6:.1f} MB" for size in (blocks_size(model), path.stat().st_size))
            print(f"| `{name}` | {memory} | {file} | {error:.1%} |", flush=True)


def files(checkpoint: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """(format, file): ComfyUI's formats, then GGUF's, with weights from the bf16 file."""
    from safetensors.torch import load_file

    from scripts.support.quantising.to_gguf import write_gguf

    for name in FORMAT_NAMES:
        path = folder / f"{name}.safetensors"
        convert(checkpoint, path, name)
        yield name, path
    weights = load_file(folder / "bf16.safetensors")
    for kind in GGUF_TYPES:
        yield f"GGUF {kind}", write_gguf(folder / f"{kind}.gguf", weights, kind)


def load(path: str, dtype: torch.dtype | None = None):
    from framepack_core.comfyui.loading.checkpoints import load_path

    return load_path(path, {"dtype": dtype} if dtype else {})


def blocks_size(model) -> int:
    """Bytes of the blocks' weights; the other weights stay in the precision that the device computes in."""
    import comfy.model_management

    transformer = model.model.diffusion_model
    return sum(map(comfy.model_management.module_size, (transformer.double_blocks, transformer.single_blocks)))


def graph() -> Callable:
    """A function from model to latents: the demo's text, picture and two sections, as in its workflow."""
    from framepack_core.comfyui import demo
    from framepack_core.comfyui.sampling.request import Given, Request, make_guider
    from framepack_core.comfyui.sampling.sample import sample
    from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
    from framepack_core.demo.scenes import draw_scene
    from framepack_core.plan import Plan

    clip, vae, vision = demo.load_clip(), demo.load_vae(), demo.load_vision()
    picture, caption = draw_scene(SEED)
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    start, embedding = {"samples": vae.encode(picture)}, vision.encode_image(picture, crop=False)
    plan = Plan.of(1.2 * SECTIONS, "forward")

    def video(model) -> torch.Tensor:
        guider, sampler = make_guider(model, positive, None, 1.0, 10.0), sampler_named("unipc_bh1")
        timeline = Given(start).timeline(plan)
        sections = plan.bind(timeline)
        sigmas = section_sigmas(sections, timeline, STEPS, 0.0)
        request = Request(guider, sampler, plan, timeline, sections, sigmas, SEED, clip_vision_output=embedding)
        return sample(request, say=lambda text: None).latents

    return video


if __name__ == "__main__":
    main()
