"""The mark of a made video: what its file and its pictures say of how they were made, in plain tags and in a signature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .signing import KINDS, Signer

COMMENT = "AI-generated"
# IPTC's terms for where a picture comes from, https://cv.iptc.org/newscodes/digitalsourcetype/
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE = f"{SOURCE_TYPES}trainedAlgorithmicMedia"
JOINED = f"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"


@dataclass(frozen=True)
class Mark:
    """Of a video that is all made, or `joined` to other footage. With a `signer`, finished files are signed too."""

    joined: bool = False
    signer: Signer | None = None

    @property
    def source_type(self) -> str:
        return JOINED if self.joined else MADE

    @property
    def tags(self) -> dict[str, str]:
        """Matroska's writer puts the names into capitals."""
        return {"comment": COMMENT, "DigitalSourceType": self.source_type}

    def notes(self, suffix: str) -> tuple[str, ...]:
        """What the user has to know of a video with this suffix."""
        if self.signer is None or suffix in KINDS:
            return ()
        return (f"not signed: C2PA does not know {suffix.removeprefix('.')}, so only tags mark the video; choose mp4 or mov",)

    def require(self) -> None:
        """Raises ValueError if there is a signer that cannot sign."""
        if self.signer is not None:
            self.signer.require(self.source_type)

    def sign(self, files: Iterable[tuple[Path, str]]) -> None:
        """Sign finished files in place, each with the suffix that it will have. No write may follow: the signature shows it.

        What C2PA does not know stays as it is. Raises ValueError or OSError, and then each file is either signed or as it was.
        """
        if self.signer is None:
            return
        for file, suffix in files:
            if suffix in KINDS:
                self.signer.sign(file, suffix, self.source_type)
