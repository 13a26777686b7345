"""Whether a section runs on this card, how fast, and in how much memory: the findings of a trial with random weights."""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass

import comfy.model_management
import psutil

from scripts.support import trial
from scripts.support.doctor.findings import Finding, gigabytes
from scripts.support.doctor.machine import Card
from scripts.support.trial import Cost, Format, Size

MEASURED = 2  # steps, after one that warms up
SPARE_RAM = 3e9  # bytes, besides the weights
LOWER = "lower base_resolution in FramePack Encode Image to 512 or 416, or take a smaller file, see docs/memory.md"


@dataclass(frozen=True)
class Trial:
    """What a section cost, or None for what could not be run; the findings say why."""

    size: Size
    format: Format
    sampling: Cost | None
    decoding: Cost | None
    findings: tuple[Finding, ...]

    @property
    def step(self) -> float | None:
        """Seconds, the median after the first step."""
        return statistics.median(self.sampling.seconds[1:]) if self.sampling else None

    @property
    def decode(self) -> float | None:
        """Seconds of a section."""
        return sum(self.decoding.seconds) if self.decoding else None


def format_for(card: Card | None) -> Format:
    """The most accurate published file that the card holds whole, otherwise the one of the example workflows."""
    whole = card is not None and card.free > 1.15 * trial.nbytes(trial.RELEASED, "bf16")
    return "bf16" if whole else "fp8"


def run(size: Size, format: Format, steps: int = MEASURED) -> Trial:
    """Sample so many steps after one that warms up, then decode while the transformer still has its part of the card.

    That is what a workflow does, too.
    """
    needed, free = trial.nbytes(size, format) + SPARE_RAM, psutil.virtual_memory().available
    if free < needed:
        value = f"not run: the weights need {gigabytes(needed)} of RAM, and {gigabytes(free)} are free"
        remedy = (
            "close other programs; with less RAM than weights ComfyUI reads them from the disk at each step: use a 4-bit file"
        )
        return Trial(size, format, None, None, (Finding("sampling", value, "warning", remedy),))
    findings: list[Finding] = []
    model = vae = sampling = decoding = None
    try:
        model = trial.transformer(size, format)
        sampling = trial.sample_section(model, size, 1 + steps)
        step = f"{statistics.median(sampling.seconds[1:]):.2f} s a step after the first"
        findings.append(judged("sampling", f"{size.pixels}, {format}, {step}", sampling))
        vae = trial.video_vae()
        decoding = trial.decode_section(vae, size)
        findings.append(judged("decoding", f"{size.decoded} latent frames, {sum(decoding.seconds):.1f} s", decoding))
    except Exception as error:
        findings.append(failed("decoding" if sampling else "sampling", error))
    finally:
        del model, vae
        comfy.model_management.unload_all_models()
        gc.collect()
        comfy.model_management.soft_empty_cache()
    return Trial(size, format, sampling, decoding, tuple(findings))


def judged(what: str, how: str, cost: Cost) -> Finding:
    if not cost.finite:
        remedy = "such frames are black: leave out flags that force fp16, and update torch and the driver"
        return Finding(what, f"{how}: runs, but the result is not finite", "fault", remedy)
    return Finding(what, f"{how}: {peaks(cost)}")


def peaks(cost: Cost) -> str:
    if cost.torch is None or cost.card is None:
        return "memory is measured on cards only"
    return f"at most {gigabytes(cost.torch)} in torch's tensors, {gigabytes(cost.card)} in use on the card altogether"


def failed(what: str, error: Exception) -> Finding:
    if comfy.model_management.is_oom(error):
        return Finding(what, "ran out of the card's memory", "fault", f"close other programs that use the card; {LOWER}")
    first = (str(error).splitlines() or [""])[0]
    remedy = "update torch and the driver; if that does not help, attach this report to an issue"
    return Finding(what, f"failed: {type(error).__name__}: {first}", "fault", remedy)
