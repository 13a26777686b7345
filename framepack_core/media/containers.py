"""Containers and codecs by ComfyUI's names, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import av
import av.codec.codec

AUTO = "auto"
# Tags of any name, where ComfyUI looks for a workflow, and the index in front, for players that stream.
INDEXED = {"movflags": "use_metadata_tags+faststart"}


@dataclass(frozen=True)
class Container:
    """`format` and `sound` are FFmpeg's names; `codecs` are those it holds, and the first of them is the usual one."""

    format: str
    codecs: tuple[str, ...]
    sound: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Codec:
    """`encoder` is FFmpeg's name, `container` the usual one. `formats` has what is stored for each pixel format it can hold."""

    encoder: str
    container: str
    formats: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)
    has_crf: bool = True


@dataclass(frozen=True)
class Chosen:
    """A container and a codec that go together, and the pixel format that is stored."""

    name: str
    container: Container
    codec: Codec
    stored: str

    @property
    def suffix(self) -> str:
        return f".{self.name}"

    def options(self, crf: int) -> dict[str, object]:
        """The encoder's options."""
        quality = {"crf": str(crf)} if self.codec.has_crf else {}
        return {**quality, **self.codec.options}


CONTAINERS = {
    "mp4": Container("mp4", ("h264", "vp9", "av1"), "aac", INDEXED),
    "webm": Container("webm", ("vp9", "av1"), "libopus"),
    "mkv": Container("matroska", ("h264", "vp9", "av1", "prores"), "aac"),
    "mov": Container("mov", ("h264", "prores"), "pcm_s16le", INDEXED),
}
# ProRes always has 10 bits or more; its profiles 422 HQ and 4444 are told apart by what is stored.
CODECS = {
    "h264": Codec("h264", "mp4", {name: name for name in ("yuv420p", "yuv444p", "yuv420p10le")}),
    "vp9": Codec("libvpx-vp9", "webm", {name: name for name in ("yuv420p", "yuv444p")}, {"row-mt": "1", "cpu-used": "4"}),
    "av1": Codec("libsvtav1", "webm", {name: name for name in ("yuv420p", "yuv420p10le")}, {"preset": "6"}),
    "prores": Codec(
        "prores_ks",
        "mov",
        {"yuv420p": "yuv422p10le", "yuv420p10le": "yuv422p10le", "yuv444p": "yuv444p10le"},
        {"vendor": "apl0"},
        has_crf=False,
    ),
}
CONTAINER_NAMES = (AUTO, *CONTAINERS)
CODEC_NAMES = (AUTO, *CODECS)


def choose(container: str, codec: str, pixel_format: str) -> Chosen:
    """What is written if `auto` stands for the usual: H.264 in MP4, VP9 and AV1 in WebM, ProRes in MOV.

    Raises ValueError for names that do not exist, for what does not go together, and for an encoder that this PyAV lacks.
    """
    for name, value, known in (("container", container, CONTAINER_NAMES), ("codec", codec, CODEC_NAMES)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    if codec == AUTO:
        codec = "h264" if container == AUTO else CONTAINERS[container].codecs[0]
    if container == AUTO:
        container = CODECS[codec].container
    found, held = CODECS[codec], CONTAINERS[container].codecs
    if codec not in held:
        others = [name for name, other in CONTAINERS.items() if codec in other.codecs]
        raise ValueError(
            f"codec is {codec}, which container {container} cannot hold; choose container {' or '.join(others)}, or codec "
            f"{' or '.join(held)}"
        )
    if pixel_format not in found.formats:
        raise ValueError(f"pixel_format is {pixel_format}, but {codec} is written in {' or '.join(found.formats)}")
    _require_encoder(codec)
    return Chosen(container, CONTAINERS[container], found, found.formats[pixel_format])


def _require_encoder(codec: str) -> None:
    if not _has_encoder(CODECS[codec]):
        there = [name for name, other in CODECS.items() if _has_encoder(other)]
        raise ValueError(
            f"codec is {codec}, but PyAV {av.__version__} has no encoder {CODECS[codec].encoder}; choose one that it has "
            f"({', '.join(there) or 'none'}), or install a PyAV from PyPI (pip install --force-reinstall av)"
        )


def _has_encoder(codec: Codec) -> bool:
    try:
        av.codec.codec.Codec(codec.encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
