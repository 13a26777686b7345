"""The orders in which a video's sections are sampled (paper, section 3.3), one object each.

To add an order, write an `Order` and put it into `ORDERS`: plans, nodes, training and experiments know orders only from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from .layout import PRESETS, Layout, resolve

Paddings = Literal["released", "exact"]
PADDINGS: tuple[Paddings, ...] = get_args(Paddings)

Window = tuple[int, ...]  # consecutive latent frames that are sampled together


class Step(NamedTuple):
    """One section of a gap: the frames that it generates, and the layout that says what it sees around them.

    `blank` time indices separate the generated frames from those skipped to before them; None: as many as there are frames.
    `origin` is the frame that counts as the video's first.
    """

    target: tuple[int, ...]
    layout: Layout
    blank: int | None = None
    origin: int = 0


@dataclass(frozen=True)
class Order:
    """`layout` is the preset that the layout `auto` stands for; `needs` says in words which layouts fit.

    `shape(layout)` is the layout as this order uses it, or None if it does not fit. `steps(windows, layout, paddings)` fills
    the windows of one gap; an order that goes `backwards` fills the last of several gaps first. An end image becomes the
    video's `last` frame, is shown `beyond` it, or has no place (None).
    """

    name: str
    layout: str
    needs: str
    shape: Callable[[Layout], Layout | None]
    steps: Callable[[Sequence[Window], Layout, Paddings], Iterator[Step]]
    end: Literal["last", "beyond"] | None = None
    backwards: bool = False

    def __str__(self) -> str:
        return self.name

    def fit(self, name: str) -> Layout:
        """The layout of this name or string as the order uses it. Raises a ValueError that names both if it does not fit."""
        layout = resolve(name)
        fitted = self.shape(layout)
        if fitted is None:
            spelled = f"{name} ({layout})" if name in PRESETS else str(layout)
            raise ValueError(f"layout {spelled} does not fit the order {self}, which needs {self.needs}")
        return fitted

    def fits(self, name: str) -> bool:
        return self.shape(resolve(name)) is not None


def order_named(name: str) -> Order:
    """Raises ValueError for an unknown name."""
    if name not in ORDERS:
        raise ValueError(f"order is {name!r}; choose one of {', '.join(ORDERS)}")
    return ORDERS[name]


def orders_with_end(*places: str) -> str:
    """The orders that put an end image in one of these places, as text: "inverted or endpoints"."""
    return " or ".join(order.name for order in ORDERS.values() if order.end in places)


def orders_with_start() -> str:
    """The orders whose own layout has a place for the video's start wherever a section is, as text."""
    return " or ".join(order.name for order in ORDERS.values() if order.fit(order.layout).left.far)


# Inverted: from the video's end back to its start


def released_paddings(sections: int) -> list[int]:
    """Blank windows before each section of the inverted order, as the official program spaces them."""
    if sections > 4:
        return [3] + [2] * (sections - 3) + [1, 0]
    return list(range(sections))[::-1]


def _inverted_shape(layout: Layout) -> Layout | None:
    """Context after the generated frames. A schedule before them is mirrored, with the video's start in front."""
    left, right = layout.left, layout.right
    if right.near and not left.near:
        return layout
    if left.near and not left.far and right.empty:
        return Layout(Layout.parse("f1k1_x_g1").left, layout.window, left.mirrored())
    return None


def _inverted_steps(windows: Sequence[Window], layout: Layout, paddings: Paddings) -> Iterator[Step]:
    blanks = released_paddings(len(windows))
    for target, blank in zip(reversed(windows), blanks, strict=True):
        yield Step(target, layout, None if paddings == "exact" else blank * len(target))


# Forward: from the video's start onwards


def _forward_shape(layout: Layout) -> Layout | None:
    return layout if layout.left.near and layout.right.empty else None


def _forward_steps(windows: Sequence[Window], layout: Layout, paddings: Paddings) -> Iterator[Step]:
    for target in windows:
        yield Step(target, layout)


# Endpoints: both ends in one section, then the gap between them from both sides inward


def _endpoints_shape(layout: Layout) -> Layout | None:
    left, right = layout.left, layout.right
    return layout if left.near and right.skip and not right.near else None


def _endpoints_steps(windows: Sequence[Window], layout: Layout, paddings: Paddings) -> Iterator[Step]:
    yield Step(windows[0] + (windows[-1] if len(windows) > 1 else ()), layout)
    inner = list(windows[1:-1])
    while inner:
        yield Step(inner.pop(0), layout)
        if inner:
            yield Step(inner.pop(), layout.mirrored())


INVERTED = Order(
    name="inverted",
    layout="framepack",
    needs="groups after g, like f1k1_x_g9_f1k1f2k2f16k4_td",
    shape=_inverted_shape,
    steps=_inverted_steps,
    end="beyond",
    backwards=True,
)
FORWARD = Order(
    name="forward",
    layout="f1",
    needs="groups before g and none after it, like td_f16k4f2k2f1k1_g9",
    shape=_forward_shape,
    steps=_forward_steps,
)
ENDPOINTS = Order(
    name="endpoints",
    layout="endpoints",
    needs="groups before g and skipped-to frames after it, like td_f16k4f2k2f1k1_g9_x_f1k1",
    shape=_endpoints_shape,
    steps=_endpoints_steps,
    end="last",
    backwards=True,
)

ORDERS: dict[str, Order] = {order.name: order for order in (INVERTED, FORWARD, ENDPOINTS)}
