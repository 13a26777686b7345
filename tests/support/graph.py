"""Small API prompts on the stand-in models or the demo's, built node by node, and the results of their runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
from PIL import Image
from safetensors.torch import load_file
from support.stand_ins.prompt import INVERTED, VAE
from torch import Tensor

from framepack_core.demo.scenes import UNSEEN
from framepack_core.demo.world import Scene
from scripts.support.server import Prompt, RunFailed, Server
from scripts.support.websocket import Message

SIZE = 64  # pixels
DEMO_SEED = 12  # a pink circle on the left, on a smooth background
DEMO_SCENE = Scene.draw(UNSEEN + DEMO_SEED)
STEPS = 2
SECTION = 1.2  # seconds: one window of 9 latent frames


@dataclass(frozen=True)
class Outputs:
    """A node's outputs: itself stands for the first, `outputs[1]` for the second."""

    node: str
    slot: int = 0

    def __getitem__(self, slot: int) -> Outputs:
        return Outputs(self.node, slot)

    @property
    def link(self) -> list:
        """As a prompt writes it."""
        return [self.node, self.slot]


class Graph:
    """A prompt with models, texts, a start image and a plan of one section; nodes that lead to no output do not run.

    graph = Graph(start_image)
    latents = graph.latents(server, graph.sampler(steps=3))
    """

    size = SIZE

    def __init__(self, image: str) -> None:
        self.prompt: Prompt = {}
        self.load_models()
        self.positive = self.text("The girl dances on the hill")
        self.negative = self.text("A still picture")
        self.image = self.add("LoadImage", image=image)
        self.start = self.encode(self.image)
        self.plan = self.plan_of()

    def load_models(self) -> None:
        self.model = self.add("FramePack_LoadModel", model_name=INVERTED, weight_dtype="default")
        self.clip = self.add("StandIn_TextEncoders")
        self.vae = self.add("VAELoader", vae_name=VAE)
        self.vision = self.add("StandIn_ClipVision")

    def add(self, kind: str, **inputs: Any) -> Outputs:
        """Add a node of this kind; each input is a value or another node's Outputs."""
        node = str(len(self.prompt) + 1)
        links = {name: value.link if isinstance(value, Outputs) else value for name, value in inputs.items()}
        self.prompt[node] = {"class_type": kind, "inputs": links}
        return Outputs(node)

    def text(self, words: str) -> Outputs:
        return self.add("CLIPTextEncode", clip=self.clip, text=words)

    def encode(self, image: Outputs, size: int | None = None) -> Outputs:
        """Outputs: latent, image embedding, fitted image."""
        inputs = {"image": image, "vae": self.vae, "clip_vision": self.vision, "base_resolution": size or self.size}
        return self.add("FramePack_EncodeImage", **inputs)

    def plan_of(self, sections: int = 1, **changes: Any) -> Outputs:
        values = {"seconds": sections * SECTION, "order": "inverted", "window": 9, "layout": "auto", "fps": 30.0}
        return self.add("FramePack_Plan", **{**values, **changes})

    def sampler(self, **changes: Any) -> Outputs:
        """FramePack_Sampler on everything above, with these inputs replaced; None leaves one out."""
        inputs = {
            "model": self.model,
            "positive": self.positive,
            "plan": self.plan,
            "start_latent": self.start,
            "clip_vision_output": self.start[1],
            "seed": 1,
            "steps": STEPS,
            "cfg": 1.0,
            "guidance": 10.0,
            "shift": 0.0,
            "sampler": "unipc_bh1",
        } | changes
        return self.add("FramePack_Sampler", **{name: value for name, value in inputs.items() if value is not None})

    def custom_sampler(self, **changes: Any) -> Outputs:
        """FramePack_SamplerCustom with a guider that calls the model once, UniPC and the official schedule."""
        inputs = {
            "guider": self.add("BasicGuider", model=self.model, conditioning=self.positive),
            "sampler": self.add("FramePack_UniPC", variant="bh1"),
            "sigmas": self.add("FramePack_Scheduler", steps=STEPS, shift=0.0, latent=self.start, window=9),
            "plan": self.plan,
            "seed": 1,
            "start_latent": self.start,
            "clip_vision_output": self.start[1],
        } | changes
        return self.add("FramePack_SamplerCustom", **inputs)

    def saving(self, latent: Outputs) -> Prompt:
        """The prompt with a node that saves this latent."""
        inputs = {"samples": latent.link, "filename_prefix": "latent"}
        return {**self.prompt, "save": {"class_type": "SaveLatent", "inputs": inputs}}

    def latents(self, server: Server, latent: Outputs, **run: Any) -> Tensor:
        """`B 16 T H W`, from a run of the prompt."""
        entry = server.run(self.saving(latent), **run)
        return load_file(server.output_files(entry)[-1])["latent_tensor"]

    def refusal(self, server: Server, latent: Outputs) -> str:
        """What the failing node says about a prompt that must stop before the first step."""
        seen = Seen()
        try:
            server.run(self.saving(latent), on_message=seen)
        except RunFailed as failure:
            assert not seen.steps(latent), "a step was sampled first"
            return failure.message
        raise AssertionError("the run was not refused")


class DemoGraph(Graph):
    """The same with the demo's models, for which words and pictures have a meaning; the image is from one scene."""

    size = 128

    def __init__(self, words: str = "a pink circle moves left") -> None:
        self.prompt = {}
        self.load_models()
        self.positive, self.negative = self.text(words), self.text("")
        self.image = self.add("FramePack_DemoImage", seed=DEMO_SEED)
        self.start = self.encode(self.image)
        self.plan = self.plan_of()

    def load_models(self) -> None:
        self.model = self.add("FramePack_LoadDemo")
        self.clip, self.vae, self.vision = (Outputs(self.model.node, slot) for slot in (1, 2, 3))

    def frames(self, server: Server, images: Outputs) -> numpy.ndarray:
        """Images as uint8 `N H W 3`, from a run of the prompt."""
        saving = {"class_type": "SaveImage", "inputs": {"images": images.link, "filename_prefix": "frame"}}
        entry = server.run({**self.prompt, "save": saving})
        files = [file for file in server.output_files(entry) if file.parent.name == "output"]
        return numpy.stack([numpy.asarray(Image.open(file).convert("RGB")) for file in files])

    def video(self, server: Server, **sampler: Any) -> numpy.ndarray:
        """The frames of the sampler's video."""
        return self.frames(server, self.add("FramePack_Decode", latent=self.sampler(**sampler), vae=self.vae))


class Seen:
    """Keeps a run's messages, as its `on_message`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.messages.append(message)

    def data(self, kind: str) -> list[Any]:
        return [message["data"] for message in self.messages if message["type"] == kind]

    def steps(self, node: Outputs) -> list[tuple[int, int]]:
        """(value, max) of every progress message of a node."""
        return [(data["value"], data["max"]) for data in self.data("progress") if data["node"] == node.node]

    def texts(self, node: Outputs) -> list[str]:
        """The lines that the node showed while it ran."""
        return [data["text"] for data in self.data("text") if data["node"] == node.node]


class CancelAt(Seen):
    """Presses cancel, once, when a line that the node shows matches."""

    def __init__(self, server: Server, node: Outputs, pattern: str) -> None:
        super().__init__()
        self.server, self.node, self.pattern, self.pressed = server, node, pattern, False

    def __call__(self, message: Message) -> None:
        super().__call__(message)
        if not self.pressed and re.search(self.pattern, "\n".join(self.texts(self.node))):
            self.pressed = True
            self.server.interrupt()


class LogLines:
    text = ""


def show_all_previews(server: Server) -> None:
    """From now on the server shows each section at once; otherwise a test is over before that is affordable."""
    server.run({"1": {"class_type": "StandIn_UnlimitedPreviews", "inputs": {}}})


@contextmanager
def new_log_lines(server: Server) -> Iterator[LogLines]:
    """What the server logs within the block, filled in when the block ends."""
    lines = LogLines()
    before = server.log.stat().st_size
    yield lines
    lines.text = server.log.read_bytes()[before:].decode(errors="replace")


@contextmanager
def own_models(server: Server, kind: str = "diffusion_models") -> Iterator[Path]:
    """A folder of models that only this server lists, as `<folder's name>/...`; it is removed after the block."""
    with TemporaryDirectory(dir=server.base / "linked" / kind) as folder:
        yield Path(folder)
