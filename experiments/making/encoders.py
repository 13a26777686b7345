"""Trains the demo's text and vision encoders to tell what is in a scene: each kind of fact has a linear head, which is
discarded afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from experiments.making.autoencoder import HELD_OUT
from experiments.making.files import load_state, save_state
from framepack_core.demo.text import POOLED_WIDTH, TEXT_WIDTH, TextEncoder, Tokenizer, vocabulary
from framepack_core.demo.vision import IMAGE_SIZE, VISION_TOKENS, VISION_WIDTH, VisionEncoder
from framepack_core.demo.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZE, Scene

NONE = "none"  # the fact about a second shape if there is only one, or about an unnamed background
TEXT_FACTS = {
    **{f"{name}{number}": (NONE, *values) for number in range(2) for name, values in
       (("shape", SHAPES), ("color", COLOURS), ("motion", MOTIONS))},
    "background": (NONE, *BACKGROUNDS),
}  # fmt: skip
IMAGE_FACTS = {"background": tuple(BACKGROUNDS)} | {
    f"{name} at {token}": (NONE, *values)
    for token in range(VISION_TOKENS)
    for name, values in (("shape", SHAPES), ("color", COLOURS))
}


def train_text(state_file: Path, steps: int = 1500, batch: int = 64) -> TextEncoder:
    """The pooled embedding learns every fact of the caption, and each token its own word, so that none is lost."""
    torch.manual_seed(1)
    tokenizer, encoder = Tokenizer(), TextEncoder()
    heads = nn.ModuleDict({name: nn.Linear(POOLED_WIDTH, len(values)) for name, values in TEXT_FACTS.items()})
    words = nn.Linear(TEXT_WIDTH, len(vocabulary()))

    def loss(step: int) -> Tensor:
        scenes = draw(step, batch)
        ids = tokenizer.batch([scene.caption for scene in scenes])
        text, pooled = encoder(ids)
        facts = [cross_entropy(heads[name](pooled), name, TEXT_FACTS, map(text_facts, scenes)) for name in TEXT_FACTS]
        return torch.stack(facts).mean() + F.cross_entropy(words(text).flatten(0, 1), ids.flatten())

    fit("text", loss, {"encoder": encoder, "heads": heads, "words": words}, state_file, steps)
    return encoder.eval()


def train_vision(state_file: Path, steps: int = 1500, batch: int = 32) -> VisionEncoder:
    """Each token learns the shape and colour whose centre it covers, and their mean the background."""
    torch.manual_seed(2)
    encoder = VisionEncoder()
    background = nn.Linear(VISION_WIDTH, len(BACKGROUNDS))
    heads = nn.ModuleDict(
        {"shape": nn.Linear(VISION_WIDTH, 1 + len(SHAPES)), "color": nn.Linear(VISION_WIDTH, 1 + len(COLOURS))}
    )

    def loss(step: int) -> Tensor:
        scenes = draw(step, batch)
        tokens = encoder(torch.stack([picture(scene) for scene in scenes]))
        truth = [image_facts(scene) for scene in scenes]
        parts = [cross_entropy(background(tokens.mean(dim=1)), "background", IMAGE_FACTS, truth)]
        for token in range(VISION_TOKENS):
            for name, head in heads.items():
                parts.append(4 * cross_entropy(head(tokens[:, token]), f"{name} at {token}", IMAGE_FACTS, truth))
        return torch.stack(parts).mean()

    fit("vision", loss, {"encoder": encoder, "heads": heads, "background": background}, state_file, steps)
    return encoder.eval()


def fit(name: str, loss: Callable[[int], Tensor], modules: dict[str, nn.Module], state_file: Path, steps: int) -> None:
    """Train with Adam at a linearly falling rate, continuing from `state_file`."""
    optimizer = torch.optim.AdamW([weight for module in modules.values() for weight in module.parameters()], lr=1e-3)
    first = load_state(state_file, optimizer=optimizer, **modules)
    with tqdm(range(first, steps), initial=first, total=steps, desc=name, mininterval=5) as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * min((step + 1) / 50, 1 - step / steps)
            value = loss(step)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{value.item():.4f}")
    save_state(state_file, steps, optimizer=optimizer, **modules)


def draw(step: int, count: int) -> list[Scene]:
    rng = np.random.default_rng([4, step])
    return [Scene.draw(int(seed)) for seed in rng.integers(1_000_000, size=count)]


def cross_entropy(logits: Tensor, name: str, facts: dict[str, tuple[str, ...]], truth: Iterable[dict[str, str]]) -> Tensor:
    return F.cross_entropy(logits, torch.tensor([facts[name].index(known.get(name, NONE)) for known in truth]))


def text_facts(scene: Scene) -> dict[str, str]:
    facts = {"background": scene.background.kind} if "background" in scene.caption else {}
    for number, actor in enumerate(scene.actors):
        facts |= {f"shape{number}": actor.shape, f"color{number}": actor.colour, f"motion{number}": actor.motion}
    return facts


def image_facts(scene: Scene) -> dict[str, str]:
    cells = int(VISION_TOKENS**0.5)
    facts = {"background": scene.background.kind}
    for actor in scene.actors:
        token = int(actor.y * cells / SIZE) * cells + int(actor.x * cells / SIZE)
        facts |= {f"shape at {token}": actor.shape, f"color at {token}": actor.colour}
    return facts


def picture(scene: Scene) -> Tensor:
    """The scene's first frame as the vision encoder sees it, `3 64 64` in -1..1."""
    return torch.from_numpy(scene.render(1, size=IMAGE_SIZE)[0]).movedim(-1, 0) / 127.5 - 1


@torch.no_grad()
def accuracy(text_state: Path, count: int = 500) -> dict[str, float]:
    """The share of held-out captions for which the pooled embedding gets each fact right."""
    encoder, heads = TextEncoder(), nn.ModuleDict({n: nn.Linear(POOLED_WIDTH, len(v)) for n, v in TEXT_FACTS.items()})
    words = nn.Linear(TEXT_WIDTH, len(vocabulary()))
    load_state(text_state, encoder=encoder, heads=heads, words=words)
    scenes = [Scene.draw(HELD_OUT + number) for number in range(count)]
    _, pooled = encoder(Tokenizer().batch([scene.caption for scene in scenes]))
    truth = [text_facts(scene) for scene in scenes]
    right = {}
    for name, values in TEXT_FACTS.items():
        told = heads[name](pooled).argmax(dim=1)
        right[name] = float(np.mean([values[guess] == known.get(name, NONE) for guess, known in zip(told, truth, strict=True)]))
    return right
