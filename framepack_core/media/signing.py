"""C2PA: a signed manifest in a finished file, which says how the file was made and shows whether it was changed afterwards.

The format is https://spec.c2pa.org, and the writer is c2pa-python, which is only imported if there is something to sign with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from .files import unfinished_file, when_unlocked

KINDS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".png": "image/png"}  # what is signed, of all that is written
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}  # a PNG would get twice as large
SMALLEST = bytes.fromhex(  # a PNG of one pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


@dataclass(frozen=True)
class Signer:
    """A chain of certificates, the signer's own first, and its key (ECDSA on P-256, PKCS#8), both as PEM; the pack's version.

    No service is asked for the time: nothing goes over the network.
    """

    certificates: bytes = field(repr=False)
    key: bytes = field(repr=False)
    version: str

    def require(self, source_type: str) -> None:
        """Raises ValueError, with what to do, if nothing can be signed: c2pa-python is missing, or refuses a trial."""
        library()
        try:
            self._write(BytesIO(SMALLEST), BytesIO(), ".png", source_type)
        except ValueError as error:
            raise ValueError(f"{error}; make others as docs/marking.md says") from error

    def sign(self, file: Path, suffix: str, source_type: str) -> None:
        """Replace a finished file by a signed one, which needs its size once more on the disk. Raises ValueError or OSError.

        c2pa-python reads it in pieces of 256 MB, of which it holds two.
        """
        with unfinished_file(file.parent) as signed:
            with file.open("rb") as source, signed.open("w+b") as target:
                self._write(source, target, suffix, source_type)
            when_unlocked(partial(os.replace, signed, file))

    def _write(self, source: BinaryIO, target: BinaryIO, suffix: str, source_type: str) -> None:
        c2pa = library()
        try:
            signer = c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, self.certificates, self.key, ta_url=None)
            )
            with (
                c2pa.Settings.from_dict(SETTINGS) as settings,
                c2pa.Context(settings, signer) as context,
                c2pa.Builder(manifest(source_type, self.version), context) as builder,
            ):
                builder.sign(KINDS[suffix], source, target)
        except c2pa.C2paError as error:
            raise ValueError(f"c2pa-python says {error}") from error


def manifest(source_type: str, version: str) -> dict[str, Any]:
    """C2PA's section "Actions": made by FramePack, out of what `source_type` says."""
    maker = {"name": "FramePack", "version": version}
    created = {"action": "c2pa.created", "digitalSourceType": source_type, "softwareAgent": maker}
    return {
        "claim_generator_info": [maker],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }


def library() -> Any:
    """Raises ValueError, with what to do, if c2pa-python or the library that it loads is missing."""
    try:
        import c2pa
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(
            f"c2pa-python cannot be imported ({error}); install it into ComfyUI's Python (pip install c2pa-python)"
        ) from error
    return c2pa
