"""Which plans a checkpoint knows, from its header or from what is known of the released ones."""

import json

import pytest

from framepack_core.plan import Plan
from framepack_core.trained import RELEASED, Trained


@pytest.mark.parametrize(
    ("order", "layout", "known"),
    [
        ("inverted", "auto", True),
        ("forward", "auto", True),
        ("forward", "f1k1_td_f16k4f2k2f1k1_g3", True),
        ("forward", "vanilla", False),
        ("inverted", "vanilla", True),  # mirrored after the start, it is the released layout
        ("inverted", "temporal", False),
        ("endpoints", "auto", False),
    ],
)
def test_only_the_released_layouts_are_known_to_the_released_checkpoints(order, layout, known):
    assert RELEASED.knows_layout(Plan.of(5, order, layout=layout)) is known


@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_the_released_checkpoints_do_not_say_their_orders(order):
    assert RELEASED.knows_order(Plan.of(5, order))


@pytest.mark.parametrize(
    ("layouts", "order", "layout", "known"),
    [
        (["geometric"], "forward", "geometric", True),
        (["geometric"], "inverted", "geometric", True),  # mirrored, as the inverted order uses it
        (["geometric"], "forward", "auto", False),
        (["framepack", "geometric"], "inverted", "auto", True),
        (["td_f2k1_g9"], "forward", "td_f2k1_g9", True),
        (["td_f2k1_g4"], "forward", "td_f2k1_g9", True),  # whatever the window
        (["td_f2k1_g9"], "forward", "td_f2k2_g9", False),
        ([], "inverted", "auto", False),
    ],
)
def test_a_header_names_presets_and_layout_strings(layouts, order, layout, known):
    trained = Trained.of_metadata({"framepack.layouts": json.dumps(layouts)})

    assert trained.knows_layout(Plan.of(5, order, layout=layout)) is known


@pytest.mark.parametrize(("orders", "known"), [(["inverted"], False), (["inverted", "forward"], True), ([], True)])
def test_a_header_names_orders(orders, known):
    header = {"framepack.layouts": '["f1"]', "framepack.orders": json.dumps(orders)}

    assert Trained.of_metadata(header).knows_order(Plan.of(5, "forward")) is known


def test_a_header_without_layouts_says_nothing():
    assert Trained.of_metadata({"format": "pt"}) is None


def test_what_is_written_is_read():
    trained = Trained(("framepack", "td_f2k1_g9"), ("inverted", "forward"))

    assert Trained.of_metadata(trained.metadata()) == trained


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"framepack.layouts": "framepack"}, "framepack.layouts is 'framepack', expected a JSON list of strings"),
        ({"framepack.layouts": '"framepack"'}, "expected a JSON list of strings"),
        ({"framepack.layouts": "[1]"}, "expected a JSON list of strings"),
        ({"framepack.layouts": '["nobody"]'}, "layout 'nobody'"),
        ({"framepack.layouts": '["f1"]', "framepack.orders": '["sideways"]'}, "framepack.orders holds sideways"),
    ],
)
def test_a_header_that_cannot_be_understood_is_refused(header, said):
    with pytest.raises(ValueError) as refusal:
        Trained.of_metadata(header)

    assert said in str(refusal.value)
