"""Numbers that are options."""

import math
from typing import Any

import click


class Number(click.FloatRange):
    """A finite number within a range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, from a text with a point and without a unit."""
        try:
            finite = math.isfinite(float(value))
        except ValueError:
            self.fail(f"{value!r} is no number: write it with a point and without a unit, as in 2.5", param, ctx)
        if not finite:
            self.fail(f"{value!r} is no finite number", param, ctx)
        return float(super().convert(value, param, ctx))
