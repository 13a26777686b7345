"""Image sizes the checkpoints were trained on."""

from __future__ import annotations

BASE = 640
STEP = 32

_LANDSCAPE = ((416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640))
BUCKETS = (*_LANDSCAPE, *((width, height) for height, width in _LANDSCAPE[::-1]))


def nearest_bucket(height: int, width: int, base: int = BASE, step: int = STEP) -> tuple[int, int]:
    """(height, width) of the trained size whose shape is closest to an image's, scaled to `base`, in multiples of `step`.

    Of equally close ones, the last is taken, as in the official program.
    """
    h, w = min(reversed(BUCKETS), key=lambda bucket: abs(height * bucket[1] - width * bucket[0]))
    return _scaled(h, base, step), _scaled(w, base, step)


def _scaled(side: int, base: int, step: int) -> int:
    return max(step, round(side * base / BASE / step) * step)
