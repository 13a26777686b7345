"""Whether a VAE is the one that a video was sampled for, as far as that can be told: latents of both kinds have one shape."""

from __future__ import annotations

from typing import Any

from ...family import FAMILIES
from ...frames import Length
from .. import private
from ..encoding import CHANNELS
from ..log import log_once
from .hunyuan import is_carried


def require_fitting(vae: Any, length: Length) -> None:
    """Raises ValueError for a VAE of another model family than the sampler's whose video has this length."""
    if not fits(vae, bool(length.apart)):
        fitting = dict.fromkeys(family.vae for family in FAMILIES if family.apart == bool(length.apart))
        raise ValueError(f"vae is not that of the model that made the latent; load {' or '.join(fitting)}")


def fits(vae: Any, apart: bool) -> bool:
    """False for a VAE that is known to be another family's: of one whose sections are clips `apart`, or of the other."""
    if vae.latent_channels != CHANNELS:
        return False
    try:
        return takes_clips(vae) in (apart, None)
    except private.Missing as missing:
        log_once(str(missing))
        return True


def takes_clips(vae: Any) -> bool | None:
    """Whether it is the VAE of a family whose sections are clips apart: Wan's, not HunyuanVideo's. None if it is neither.

    ComfyUI takes a tiny one in float16 for HunyuanVideo's, and scales latents for it; one in another dtype for Wan's. Raises
    private.Missing.
    """
    model = vae.first_stage_model
    if isinstance(model, private.TAEHV):
        private.require_attributes(model, "latent_format", serves=private.TELLING_VAES)
        return model.latent_format is None
    if isinstance(model, private.WanVAE):
        return True
    return False if is_carried(vae) else None
