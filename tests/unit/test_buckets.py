"""Which trained size an image is resized to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.weights.buckets import nearest_bucket

OFFICIAL = [
    (416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640),
    (640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416),
]  # fmt: skip

sides = st.integers(1, 8192)


def official_nearest(height, width):
    nearest, least = None, float("inf")
    for h, w in OFFICIAL:
        if (distance := abs(height * w - width * h)) <= least:
            nearest, least = (h, w), distance
    return nearest


@given(sides, sides)
def test_an_image_takes_the_trained_size_that_the_official_program_takes(height, width):
    assert nearest_bucket(height, width) == official_nearest(height, width)


@pytest.mark.parametrize(("height", "width"), OFFICIAL)
def test_a_trained_size_is_its_own(height, width):
    assert nearest_bucket(height, width) == (height, width)


def test_a_square_image_is_as_near_to_two_sizes_and_takes_the_taller():
    assert nearest_bucket(1000, 1000) == (640, 608)


@given(sides, sides, st.integers(64, 2048))
def test_other_bases_scale_the_trained_size_in_multiples_of_32(height, width, base):
    trained, scaled = nearest_bucket(height, width), nearest_bucket(height, width, base)

    assert all(side % 32 == 0 and side > 0 for side in scaled)
    assert all(abs(side - whole * base / 640) <= 16 or side == 32 for side, whole in zip(scaled, trained, strict=True))


@pytest.mark.parametrize(("base", "size"), [(1280, (1280, 1216)), (512, (512, 480)), (320, (320, 320)), (1, (32, 32))])
def test_some_other_bases(base, size):
    assert nearest_bucket(640, 608, base) == size
