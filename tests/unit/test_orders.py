"""An order is one object: registering it is all that plans, tables and drawings need, and an unknown one is an error."""

import ast
from pathlib import Path

import pytest

from framepack_core.drawing.chart import Chart, title
from framepack_core.layout import resolve
from framepack_core.orders import ENDPOINTS, FORWARD, INVERTED, ORDERS, Order, Step, order_named, orders_with_end
from framepack_core.plan import Plan
from framepack_core.trained import Trained

ROOT = Path(__file__).parents[2]
PRODUCT = [path for folder in ("framepack_core", "nodes", "experiments", "scripts") for path in (ROOT / folder).rglob("*.py")]


def odd_windows_first(windows, layout, paddings):
    for target in (*windows[::2], *windows[1::2]):
        yield Step(target, layout)


LEAPS = Order(
    name="leaps",
    layout="vanilla",
    needs="groups before g",
    shape=lambda layout: layout if layout.left.near else None,
    steps=odd_windows_first,
)


@pytest.fixture
def leaps(monkeypatch) -> Order:
    """A new order, registered."""
    monkeypatch.setitem(ORDERS, LEAPS.name, LEAPS)
    return LEAPS


def test_a_registered_order_plans_by_its_own_steps(leaps):
    sections = Plan.of(4.8, "leaps").fill(37)

    assert [section.target[0] for section in sections] == [1, 19, 10, 28]


def test_a_registered_order_takes_its_own_layout_and_refuses_those_that_do_not_fit(leaps):
    assert Plan.of(1.2, "leaps").layout == resolve("vanilla")
    with pytest.raises(ValueError, match="does not fit the order leaps, which needs groups before g"):
        Plan.of(1.2, "leaps", layout="framepack")


def test_a_registered_order_is_in_tables_drawings_and_what_a_checkpoint_says(leaps):
    plan = Plan.of(2.4, "leaps")

    assert plan.table().startswith("leaps, 2 x 9 latent frames")
    assert title(Chart.of(plan, 76, 80, (0,))).startswith("FramePack plan: leaps order")
    assert Trained.of_metadata(Trained(("vanilla",), ("leaps",)).metadata()).knows_order(plan)


def test_an_order_without_a_place_for_an_end_image_refuses_one(leaps):
    with pytest.raises(ValueError, match="in the inverted order, not in leaps"):
        Plan.of(1.2, "leaps").fill(10, end=True)


@pytest.mark.parametrize("name", ["leaps", "Inverted", "", "endpoint"])
def test_an_unknown_order_is_an_error_everywhere(name):
    with pytest.raises(ValueError, match="choose one of inverted, forward, endpoints"):
        order_named(name)
    with pytest.raises(ValueError, match="choose one of inverted, forward, endpoints"):
        Plan.of(1.2, name)
    with pytest.raises(ValueError, match="expected some of inverted, forward, endpoints"):
        Trained.of_metadata(Trained(("framepack",), (name,)).metadata())


def test_the_three_orders_of_the_paper_say_where_an_end_image_goes():
    assert [order.end for order in (INVERTED, FORWARD, ENDPOINTS)] == ["beyond", None, "last"]
    assert orders_with_end("beyond", "last") == "inverted or endpoints"


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_asks_for_an_orders_name(path):
    """An order is asked what it does, so that a new one cannot be taken for an old one."""
    compared = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Compare)]
    constants = {part.value for node in compared for part in ast.walk(node) if isinstance(part, ast.Constant)}

    assert not constants & ORDERS.keys()
