"""Which words count in a clip, from a caption with times in seconds of the video."""

import pytest

from framepack_core.training.captions import spelled, told_in
from framepack_core.training.videos import Cut

FPS = 30.0
TEXT = "a cat sits [2s: it jumps] [3s-4s: it lands]"
WHOLE = Cut(0, 145)


def test_words_count_from_the_latent_frame_that_begins_nearest_to_their_time():
    """Latent frame 16 begins with frame 61, 23 with frame 89, and 31 with frame 121."""
    assert told_in(TEXT, 5.0, WHOLE, FPS) == {0: "a cat sits", 16: "it jumps", 23: "it lands", 31: "a cat sits"}


def test_a_clip_has_the_words_of_its_own_time():
    assert told_in(TEXT, 5.0, Cut(30, 37), FPS) == {0: "a cat sits", 8: "it jumps"}
    assert told_in(TEXT, 5.0, Cut(65, 20), FPS) == {0: "it jumps"}
    assert told_in(TEXT, 5.0, Cut(60, 37), FPS) == {0: "it jumps", 8: "it lands"}
    assert told_in("[-1s: it ends]", 5.0, Cut(60, 37), FPS) == {0: "it ends"}, "with nothing else, it counts from the beginning"


def test_a_caption_without_times_is_for_the_whole_clip():
    assert told_in("a [big] cat", 5.0, WHOLE, FPS) == {0: "a [big] cat"}
    assert spelled({0: "a [big] cat"}, FPS) == "a [big] cat"


def test_what_a_clip_is_told_is_spelled_in_its_own_seconds_and_reads_back():
    told = told_in(TEXT, 5.0, Cut(30, 100), FPS)
    text = spelled(told, FPS)

    assert text == "a cat sits [0.967s: it jumps] [2.033s: it lands] [2.967s: a cat sits]"
    assert told_in(text, 100 / FPS, Cut(0, 100), FPS) == told


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a cat [2s ~1s: it jumps]", r"2s ~1s fades, but a clip's caption changes at once; leave out ~1s"),
        ("a cat [2s: it jumps", "is not closed"),
        ("[2s: ]", "has no words"),
        ("a cat [2 to 3: it jumps]", "looks like a time"),
    ],
)
def test_captions_that_cannot_be_are_refused(caption, message):
    with pytest.raises(ValueError, match=message):
        told_in(caption, 5.0, WHOLE, FPS)
