"""The layouts and orders a checkpoint was trained with: from its header, or from what is known of the released ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .layout import resolve
from .orders import ORDERS
from .plan import Plan

LAYOUTS_KEY, ORDERS_KEY = "framepack.layouts", "framepack.orders"  # safetensors header entries, JSON lists of strings


@dataclass(frozen=True)
class Trained:
    """Layouts as preset names or layout strings, whatever their window; without orders, every order that they fit."""

    layouts: tuple[str, ...]
    orders: tuple[str, ...] = ()

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> Trained | None:
        """Read a file's header; None if it names no layouts. Raises ValueError for entries that cannot be understood."""
        if LAYOUTS_KEY not in metadata:
            return None
        trained = cls(_strings(metadata, LAYOUTS_KEY), _strings(metadata, ORDERS_KEY))
        for layout in trained.layouts:
            resolve(layout)
        unknown = sorted(set(trained.orders) - set(ORDERS))
        if unknown:
            raise ValueError(f"{ORDERS_KEY} holds {', '.join(unknown)}, expected some of {', '.join(ORDERS)}")
        return trained

    def metadata(self) -> dict[str, str]:
        """The header entries that `of_metadata` reads."""
        return {LAYOUTS_KEY: json.dumps(self.layouts), ORDERS_KEY: json.dumps(self.orders)}

    def knows_order(self, plan: Plan) -> bool:
        return not self.orders or plan.order.name in self.orders

    def knows_layout(self, plan: Plan) -> bool:
        """Whether one of the layouts, as the plan's order uses it, is the plan's."""
        fitting = filter(plan.order.fits, self.layouts)
        return any(plan.order.fit(layout).with_window(plan.window) == plan.layout for layout in fitting)


RELEASED = Trained(("framepack", "f1"))


def _strings(metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        values = json.loads(metadata.get(key, "[]"))
    except ValueError as error:
        raise ValueError(f"{key} is {metadata[key]!r}, expected a JSON list of strings") from error
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} is {metadata[key]!r}, expected a JSON list of strings")
    return tuple(values)
