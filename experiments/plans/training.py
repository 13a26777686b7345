"""What training the released 13B transformer takes, by arithmetic: the tables in docs/training.md.

`python3 scripts/plans.py training` prints them. Nothing here was run on a GPU: bytes and operations are counted from shapes,
the bytes of activations from what PyTorch keeps for a block (tests/experiments/test_training_plan.py checks both).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from framepack_core.layout import BASE_KERNEL, PRESETS, Kernel, resolve, token_count

HIDDEN, HEADS, DOUBLE, SINGLE, REFINER = 3072, 24, 20, 40, 2
LATENT, TEXT, POOLED, IMAGE, TIME = 16, 4096, 768, 1152, 256
TEXT_TOKENS, IMAGE_TOKENS = 256, 729  # the longest caption, and SigLIP's 27 x 27
WINDOW, HISTORY = 9, 100  # history: longer than any layout's groups
SIZES = {"832x480": (60, 104), "640x608": (76, 80)}  # latent height, width

FP32, BF16, FP8 = 4, 2, 1
ADAM, RESERVE, GPU = 2 * FP32, 6e9, 80e9  # bytes: two moments; CUDA, buffers and fragments; a GPU
# Bytes that PyTorch keeps from a block for the backward pass, in bf16 autocast, per token and unit of width.
KEPT = {("full", "double"): 57, ("full", "single"): 52, ("lora", "double"): 47, ("lora", "single"): 44}

PEAKS = {"H100": 990e12, "A100": 312e12}  # bf16, dense
UTILISATION = 0.40
NVLINK = 300e9  # bytes per second that a GPU exchanges with the others
RANK = 32
CLIP_LATENTS = 38


def main() -> None:
    print(report())


def report() -> str:
    """Markdown: the number of parameters, and a table for each question."""
    tables = {
        "Tokens of a sample": token_table(),
        "Memory that does not depend on the batch, GB on each GPU": state_table(),
        "Activations, GB a sample": activation_table(),
        "Samples that fit into 80 GB": fit_table(),
        "Time": time_table(),
        "Sharding, each GPU and micro-batch": sharding_table(),
        "Disk": disk_table(),
    }
    return "\n\n".join([f"{parameters():,} parameters.", *(f"{title}:\n\n{markdown(rows)}" for title, rows in tables.items())])


# Parameters


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def attention(width: int) -> int:
    """Projections of q, k, v and out, and the two norms of q and k."""
    return 4 * linear(width, width) + 2 * (width // HEADS)


def feed_forward(width: int) -> int:
    return linear(width, 4 * width) + linear(4 * width, width)


def double_block() -> int:
    return 2 * (linear(HIDDEN, 6 * HIDDEN) + attention(HIDDEN) + feed_forward(HIDDEN))


def single_block() -> int:
    q_k_v = 3 * linear(HIDDEN, HIDDEN) + 2 * (HIDDEN // HEADS)
    return linear(HIDDEN, 3 * HIDDEN) + q_k_v + linear(HIDDEN, 4 * HIDDEN) + linear(5 * HIDDEN, HIDDEN)


def embedders() -> int:
    """Everything that is not one of the 60 blocks."""
    time = linear(TIME, HIDDEN) + linear(HIDDEN, HIDDEN)
    patches = 2 * _convolution(BASE_KERNEL) + _convolution(Kernel(2, 4, 4)) + _convolution(Kernel(4, 8, 8))
    conditions = 2 * time + linear(POOLED, HIDDEN) + linear(HIDDEN, HIDDEN)
    refiner_block = 4 * linear(HIDDEN, HIDDEN) + feed_forward(HIDDEN) + linear(HIDDEN, 2 * HIDDEN) + 4 * HIDDEN
    refiner = time + linear(TEXT, HIDDEN) + linear(HIDDEN, HIDDEN) + linear(TEXT, HIDDEN) + REFINER * refiner_block
    image = linear(IMAGE, 3 * HIDDEN) + linear(3 * HIDDEN, HIDDEN)
    head = linear(HIDDEN, 2 * HIDDEN) + linear(HIDDEN, 4 * LATENT)
    return patches + conditions + refiner + image + head


def _convolution(kernel: Kernel) -> int:
    return linear(LATENT * kernel.t * kernel.h * kernel.w, HIDDEN)


def parameters() -> int:
    return DOUBLE * double_block() + SINGLE * single_block() + embedders()


def lora_parameters(rank: int = RANK) -> int:
    """Adapters on every matrix of the blocks' attention and feed-forward layers."""
    stream = 4 * (2 * HIDDEN) + 2 * (5 * HIDDEN)
    single = 3 * (2 * HIDDEN) + 5 * HIDDEN + 6 * HIDDEN
    return rank * (DOUBLE * 2 * stream + SINGLE * single)


# Tokens and operations


@dataclass(frozen=True)
class Sample:
    """One section of one clip."""

    layout: str
    size: str

    @property
    def context(self) -> int:
        return resolve(self.layout).context_tokens(*SIZES[self.size], HISTORY)

    @property
    def target(self) -> int:
        return token_count(WINDOW, BASE_KERNEL, *SIZES[self.size])

    @property
    def tokens(self) -> int:
        return self.context + self.target + TEXT_TOKENS + IMAGE_TOKENS

    @property
    def matrix_operations(self) -> float:
        """The blocks' matrices, forward: 12 HIDDEN^2 weights per token in either kind of block, two operations each."""
        return 2 * 12 * HIDDEN**2 * (DOUBLE + SINGLE) * self.tokens

    @property
    def attention_operations(self) -> float:
        """Every token with every token, in two products."""
        return 4 * HIDDEN * (DOUBLE + SINGLE) * self.tokens**2

    @property
    def forward(self) -> float:
        return self.matrix_operations + self.attention_operations

    def training(self, method: str, checkpointing: bool) -> float:
        """Forward and backward; LoRA needs no gradients of frozen matrices, and checkpointing needs a second forward pass."""
        matrices, attentions = (2 if method == "lora" else 3), 3
        return (matrices + checkpointing) * self.matrix_operations + (attentions + checkpointing) * self.attention_operations


# Memory


@dataclass(frozen=True)
class Setup:
    """A way to train: `full` or `lora`, bytes per frozen weight, GPUs, whether they share the weights (FSDP full shard)."""

    name: str
    method: str
    gpus: int
    sharded: bool = False
    base: int = BF16
    ema: bool = True

    @property
    def parts(self) -> dict[str, float]:
        """Bytes on each GPU that do not depend on the batch."""
        trained = parameters() if self.method == "full" else lora_parameters()
        frozen = 0 if self.method == "full" else self.base * parameters()
        share = self.gpus if self.sharded else 1
        gathered = (2 * BF16 + FP32) * double_block()  # this block's weights, the next one's, and the gradients to sum
        return {
            "weights": (frozen + FP32 * trained) / share,
            "gradients": FP32 * trained / share,
            "Adam": ADAM * trained / share,
            "EMA": FP32 * trained / share * self.ema,
            "copies": gathered if self.sharded else BF16 * trained,
        }

    @property
    def fixed(self) -> float:
        return sum(self.parts.values())

    def samples(self, sample: Sample, checkpointing: bool) -> int:
        """How many samples fit onto a GPU at once."""
        return max(0, int((GPU - RESERVE - self.fixed) // activations(sample, self.method, checkpointing)))


SETUPS = (
    Setup("full", "full", 1),
    Setup(f"LoRA {RANK}, bf16 base", "lora", 1),
    Setup(f"LoRA {RANK}, fp8 base (not in this code)", "lora", 1, base=FP8),
    Setup("full, FSDP", "full", 8, sharded=True),
    Setup("full, FSDP, no EMA", "full", 8, sharded=True, ema=False),
    Setup(f"LoRA {RANK}, copies on every GPU", "lora", 8),
    Setup(f"LoRA {RANK}, FSDP", "lora", 8, sharded=True),
)


def activations(sample: Sample, method: str, checkpointing: bool) -> float:
    """Bytes per sample. With checkpointing: all blocks' inputs, and one block's own twice: kept, and in its backward pass."""
    unit = sample.tokens * HIDDEN
    kept = {kind: unit * KEPT[method, kind] for kind in ("double", "single")}
    if checkpointing:
        return BF16 * unit * (DOUBLE + SINGLE) + 2 * kept["double"]
    return DOUBLE * kept["double"] + SINGLE * kept["single"]


# Tables


Row = tuple[object, ...]


def token_table() -> Iterator[Row]:
    yield ("layout", *(f"{size}: context" for size in SIZES), *(f"{size}: all" for size in SIZES), "forward, PFLOP")
    for layout in PRESETS:
        samples = [Sample(layout, size) for size in SIZES]
        work = " / ".join(f"{sample.forward / 1e15:.2f}" for sample in samples)
        yield (layout, *(f"{sample.context:,}" for sample in samples), *(f"{sample.tokens:,}" for sample in samples), work)


def state_table() -> Iterator[Row]:
    yield ("GPUs", "training", *SETUPS[0].parts, "together")
    for setup in SETUPS:
        yield (setup.gpus, setup.name, *(gigabytes(part) for part in setup.parts.values()), gigabytes(setup.fixed))


def activation_table() -> Iterator[Row]:
    yield ("size", "tokens", "full", "full, checkpointing", "LoRA", "LoRA, checkpointing")
    for size in SIZES:
        sample = Sample("framepack", size)
        columns = [activations(sample, method, checkpointing) for method in ("full", "lora") for checkpointing in (False, True)]
        yield (size, f"{sample.tokens:,}", *map(gigabytes, columns))


def fit_table() -> Iterator[Row]:
    yield ("GPUs", "training", "checkpointing", *(f"samples a GPU, {size}" for size in SIZES))
    for setup in SETUPS:
        for checkpointing in (False, True):
            samples = [setup.samples(Sample("framepack", size), checkpointing) for size in SIZES]
            yield (setup.gpus, setup.name, "yes" if checkpointing else "no", *(count or "does not fit" for count in samples))


def time_table() -> Iterator[Row]:
    yield ("GPUs", "training", "size", "samples a step", "PFLOP a sample", *(f"hours for 1,000 steps, {gpu}" for gpu in PEAKS))
    for gpus, method, batch in ((1, "lora", 8), (8, "lora", 64), (8, "full", 64)):
        for size in SIZES:
            work = Sample("framepack", size).training(method, checkpointing=True)
            hours = [1000 * batch * work / (gpus * UTILISATION * peak) / 3600 for peak in PEAKS.values()]
            yield (gpus, method, size, batch, f"{work / 1e15:.2f}", *(f"{each:.1f}" for each in hours))


def sharding_table() -> Iterator[Row]:
    """Each block's weights are fetched twice (forward, and backward with checkpointing), its gradients sent once."""
    yield ("GB moved", f"seconds at {NVLINK / 1e9:.0f} GB/s", *(f"seconds of computation a sample, {gpu}" for gpu in PEAKS))
    moved = 3 * BF16 * parameters()
    work = Sample("framepack", "640x608").training("full", checkpointing=True)
    yield (gigabytes(moved), f"{moved / NVLINK:.2f}", *(f"{work / (UTILISATION * peak):.1f}" for peak in PEAKS.values()))


def disk_table() -> Iterator[Row]:
    yield ("what", "GB")
    clip = max(LATENT * CLIP_LATENTS * height * width for height, width in SIZES.values())
    clip = BF16 * (clip + TEXT_TOKENS * TEXT + POOLED + IMAGE_TOKENS * IMAGE)
    yield (f"10,000 cached clips of {CLIP_LATENTS} latents", gigabytes(10_000 * clip))
    yield ("a state of a full fine-tune (weights, Adam, EMA)", gigabytes((FP32 + ADAM + FP32) * parameters()))
    yield ("its exported model, bf16", gigabytes(BF16 * parameters()))
    yield (f"a state of a LoRA of rank {RANK}", gigabytes((FP32 + ADAM + FP32) * lora_parameters()))


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f}"


def markdown(rows: Iterable[Row]) -> str:
    head, *body = [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


if __name__ == "__main__":
    main()
