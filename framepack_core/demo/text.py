"""The demo's text encoder: words of the synthetic world to token and pooled embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

TOKENS = 24  # of every text, padded; the transformer sees the padding, as with CLIP's 77
TEXT_WIDTH, POOLED_WIDTH = 128, 768

PAD, UNKNOWN = "<pad>", "<unknown>"
GRAMMAR = ("a", "an", "and", "on", "background", ",", ".")


def vocabulary() -> tuple[str, ...]:
    """Every word the encoder knows; a word's position is its id."""
    phrases = [phrase.split() for phrases in MOTIONS.values() for phrase in phrases]
    words = {*GRAMMAR, *COLOURS, *SHAPES, *BACKGROUNDS.values(), *(word for phrase in phrases for word in phrase)}
    return (PAD, UNKNOWN, *sorted(words))


class Tokenizer:
    """Turns words into ids."""

    def __init__(self) -> None:
        self.words = vocabulary()
        self._ids = {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> tuple[list[int], list[str]]:
        """`TOKENS` ids, padded or cut, and the words that the encoder does not know."""
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        unknown = [word for word in words if word not in self._ids]
        ids = [self._ids.get(word, self._ids[UNKNOWN]) for word in words][:TOKENS]
        return ids + [self._ids[PAD]] * (TOKENS - len(ids)), unknown

    def batch(self, texts: Sequence[str]) -> Tensor:
        """Ids `B TOKENS`."""
        return torch.tensor([self.encode(text)[0] for text in texts])


class TextEncoder(nn.Module):
    """Turns ids `B 24` into text embeddings `B 24 128` and pooled ones `B 768`, both of about unit deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(vocabulary()), TEXT_WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(TOKENS, TEXT_WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(TEXT_WIDTH, 4, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(TEXT_WIDTH, elementwise_affine=False)
        self.pool = nn.Linear(TEXT_WIDTH, POOLED_WIDTH)
        self.pooled_norm = nn.LayerNorm(POOLED_WIDTH, elementwise_affine=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.words(ids) + self.places
        for layer in self.layers:
            x = layer(x)
        text = self.norm(x)
        return text, self.pooled_norm(self.pool(text.mean(dim=1)))
