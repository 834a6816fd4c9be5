"""Charts as plain data: the lines, what the axes mean, the command that made the numbers.

A chart becomes a plotly figure (a dict in plotly's JSON form, drawn by plotly.js in the page) and a table of the same.
Colours are names that static/charts.js looks up, so that one figure serves light, dark and print.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Number = float | int | None

# After Okabe and Ito (2008): colours that stay apart for people with any common colour blindness; see style.css.
SERIES = ["series-1", "series-2", "series-3", "series-4", "series-5", "series-6"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
MOST_POINTS = 4000
TABLE_ROWS = 20


@dataclass(frozen=True)
class Line:
    """One line of a chart; `x` and `y` have equal lengths, a y that is None or not finite leaves a gap.

    `series` (from 0) chooses colour and dash, so that one name looks the same in every chart. `points` draws marks that
    no line joins.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Number]
    series: int = 0
    points: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one axis. `note` says what to see in it, `command` is what makes the numbers again, `y_names` are what
    stands at 1, 2, ... of the vertical axis in place of numbers.
    """

    id: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    note: str = ""
    command: str = ""
    log_y: bool = False
    log_x: bool = False
    y_names: Sequence[str] = ()

    block = "chart"

    def figure(self) -> dict[str, Any]:
        """The plotly figure. A line of more than 4,000 points shows every k-th of them, and the last."""
        y_axis: dict[str, Any] = {"title": {"text": self.y_label}, "type": "log" if self.log_y else "linear"}
        if self.y_names:
            y_axis |= {"tickvals": list(range(1, len(self.y_names) + 1)), "ticktext": list(self.y_names)}
        return {
            "data": [trace(line) for line in self.lines],
            "layout": {
                "xaxis": {"title": {"text": self.x_label}, "type": "log" if self.log_x else "linear"},
                "yaxis": y_axis,
                "showlegend": len(self.lines) > 1,
            },
        }

    def table(self) -> "Table":
        """The same numbers as text: about 20 rows, evenly spaced, the last included."""
        steps = sorted({x for line in self.lines for x in line.x})
        values = [dict(zip(line.x, line.y, strict=True)) for line in self.lines]
        rows = [[show(x), *(show(value.get(x)) for value in values)] for x in spread(steps, TABLE_ROWS)]
        note = f"{len(rows)} of {len(steps)} points; metrics.jsonl has them all." if len(rows) < len(steps) else ""
        return Table("", [self.x_label, *(line.name for line in self.lines)], rows, note=note)


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; `best` marks rows (by index) to stand out, `prose` says that the last column holds long
    texts, which are set as such.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    command: str = ""
    best: Sequence[int] = ()
    prose: bool = False

    block = "table"


def trace(line: Line) -> dict[str, Any]:
    """One plotly trace; few points are drawn as marks too, so that a lone one is seen."""
    every = max(1, math.ceil(len(line.x) / MOST_POINTS))
    shown = sorted({*range(0, len(line.x), every), len(line.x) - 1} - {-1})
    return {
        "type": "scatter",
        "name": line.name,
        "x": [line.x[i] for i in shown],
        "y": [finite(line.y[i]) for i in shown],
        "mode": "markers" if line.points else "lines+markers" if len(line.x) <= 60 else "lines",
        "line": {"color": SERIES[line.series % len(SERIES)], "dash": DASHES[line.series % len(DASHES)], "width": 2},
        "marker": {"size": 5},
    }


def finite(value: Number) -> Number:
    """The value, or None where JSON has no number for it."""
    return value if value is not None and math.isfinite(value) else None


def spread(items: Sequence, most: int) -> list:
    """At most `most` of the items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def show(value: Any) -> str:
    """A value as people read it: four significant digits, thousands set apart; "-" for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float | int):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{value:,.0f}"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
