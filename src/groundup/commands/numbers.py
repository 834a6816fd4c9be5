"""`groundup numbers`: the number formats, and what each makes of a number."""

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from groundup.base.console import say, table
from groundup.commands.command import Command
from groundup.quantization.numbers import FORMATS, BlockFloat, FloatFormat, NumberFormat, rounded


class Numbers(Command):
    """Number formats from fp32 to mxfp4: bits, range, spacing; and what each makes of a number."""

    value: float | None = Field(default=None, allow_inf_nan=False)
    """A number to round into each format."""
    largest: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """The largest magnitude of the block that the number lies in: it makes the scale where a format has one."""
    out_dir: Path | None = None
    """Write a page with the numbers drawn into this folder."""

    def run(self) -> dict[str, Any]:
        """Print the table; write the page where one is asked for."""
        facts = [described(form) for form in FORMATS.values()]
        say(table([[shown(cell) for cell in row.values()] for row in facts], list(facts[0])))
        result: dict[str, Any] = {"formats": facts}
        if self.value is not None:
            result["value"] = [self._of(form, self.value) for form in FORMATS.values()]
            rows = [[shown(cell, 9) for cell in row.values()] for row in result["value"]]
            say("\n" + table(rows, list(result["value"][0])))
        if self.out_dir is not None:
            from groundup.quantization.numbers_page import write_page

            result["page"] = write_page(self.out_dir / "numbers.html")
            say(f"\nthe page is {result['page']}")
        return result

    def _of(self, form: NumberFormat, value: float) -> dict[str, Any]:
        largest = max(self.largest, abs(value))
        became = rounded(form, value, largest)
        error = abs(became - value) / abs(value) if value and math.isfinite(became) else None
        return {
            "format": form.name,
            "becomes": became if math.isfinite(became) else str(became),
            "relative error": error,
            "pattern": form.pattern(value) if isinstance(form, FloatFormat) else None,
            "scale": None if isinstance(form, FloatFormat) else scale_of(form, largest),
        }


def scale_of(form: Any, largest: float) -> float:
    """What a block whose largest magnitude is given is divided by."""
    return form.scale(largest) if isinstance(form, BlockFloat) else largest / form.top


def described(form: NumberFormat) -> dict[str, Any]:
    """A format's figures, by name; of a block's format those of one number before its scale."""
    element = form.element if isinstance(form, BlockFloat) else form
    floats = isinstance(element, FloatFormat)
    return {
        "format": form.name,
        "bits": form.bits,
        "sign": 1 if floats else None,
        "exponent": element.exponent_bits if floats else None,
        "mantissa": element.mantissa_bits if floats else None,
        "largest": element.largest if floats else element.numbers[-1],
        "smallest normal": element.smallest_normal if floats else None,
        "smallest subnormal": element.smallest_subnormal if floats else None,
        "spacing at 1": element.spacing(1.0) if floats else 1.0 if form.name.startswith("int") else None,
        "scale for": None if isinstance(form, FloatFormat) else str(form.block),
    }


def shown(value: Any, digits: int = 5) -> str:
    """A cell as people read it."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
