"""The outline of a model as a drawing: text for a terminal, SVG for a page."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from groundup.models.architecture.outline import Group, Outline, Part


def as_count(number: int) -> str:
    """A number for people, in three digits: 6.74B."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def facts(outline: Outline) -> list[str]:
    """What the whole costs, one phrase each."""
    found = [f"{outline.parameters:,} parameters"]
    if outline.flops is not None:
        found.append(f"{as_count(outline.flops)} operations a token")
    if outline.state_bytes:
        found.append(f"{outline.state_bytes:,} bytes of keys and values a token (bf16)")
    if outline.constant_state_bytes:
        found.append(f"a constant state of {outline.constant_state_bytes:,} bytes")
    return found


def steps(group: Group) -> list[str]:
    """The layout of a block as tokens; parts that it does not name stand at its end."""
    written = group.layout.split() if group.layout else []
    named = {name for token in written for name in token.split("|")}
    present = {part.name for part in group.parts}
    kept = ["|".join(n for n in token.split("|") if token in "(+" or n in present) for token in written]
    return [token for token in kept if token] + [part.name for part in group.parts if part.name not in named]


# -- text -------------------------------------------------------------------------------------------------------------


def as_text(outline: Outline) -> str:
    """The drawing in characters, about 110 columns."""
    lines = [outline.title + ": " + ", ".join(facts(outline)), "", "  ids (B, T)", "   │"]
    for part in outline.before:
        lines += [*_text_part(part, "  "), "   │"]
    for group in outline.groups:
        lines += [*_text_group(group), "   │"]
    for i, part in enumerate(outline.after):
        lines += ([] if i == 0 else ["   │"]) + list(_text_part(part, "  "))
    return "\n".join(lines)


def _text_group(group: Group) -> Iterator[str]:
    count, first = len(group.layers), group.layers[0]
    which = f"layer {first}" if count == 1 else f"layers {first} to {group.layers[-1]}"
    each = "" if count == 1 else f", {as_count(group.parameters)} each"
    yield f" ╭─ {group.kind} × {count}: {which}{each} " + "─" * 20
    parts = {part.name: part for part in group.parts}
    depth = 0
    for token in steps(group):
        if token == "(":
            yield " │" + " │" * depth + " ├─╮"
            depth += 1
        elif token == "+":
            depth = max(0, depth - 1)
            yield " │" + " │" * depth + " +─╯"
        else:
            for name in token.split("|"):
                yield from _text_part(parts[name], " │" + " │" * (depth + 1) + " ")
    yield " ╰" + "─" * 40


def _text_part(part: Part, before: str) -> Iterator[str]:
    yield _row(before, part.name, part.kind, part.detail, part.shape, part.parameters)
    for inner in part.inner:
        name = inner.name.removeprefix(part.name + ".")
        yield _row(before + "  · ", name, "", inner.detail or inner.kind, inner.shape, inner.parameters)


def _row(before: str, name: str, kind: str, detail: str, shape: str, parameters: int) -> str:
    what = ": ".join(word for word in (kind, detail) if word)
    left = f"{before}{name:<10} {what}"
    return f"{left:<84} {shape:<20}{as_count(parameters) if parameters else '':>7}".rstrip()


# -- SVG --------------------------------------------------------------------------------------------------------------

WIDTH, LEFT, BOX, GAP, LINE = 820, 90, 440, 14, 18
STYLE = """
svg { font: 13px system-ui, sans-serif; color: #1b1f24; background: #ffffff; }
text { fill: currentColor; } .name { font-weight: 600; } .small { font-size: 11.5px; opacity: .78; }
.box { fill: #eef3fb; stroke: #6f87ad; } .norm { fill: #fdf3dc; stroke: #b79a4c; }
.attn { fill: #e4f3ea; stroke: #5a9a72; }
.mlp { fill: #f7e8ee; stroke: #a9637f; } .frame { fill: none; stroke: #8b949e; stroke-dasharray: 5 4; }
.wire { fill: none; stroke: #57606a; stroke-width: 1.4; } .plus { fill: #ffffff; stroke: #57606a; }
@media (prefers-color-scheme: dark) {
  svg { color: #e6edf3; background: #14181d; } .box { fill: #1d2a3f; } .norm { fill: #3a3118; } .attn { fill: #1b3526; }
  .mlp { fill: #3b2230; } .plus { fill: #14181d; } .wire { stroke: #9aa4ae; }
}
"""


@dataclass
class _Pen:
    """Collects shapes from top to bottom."""

    shapes: list[str]
    y: float = 0.0

    def wire(self, height: float = GAP) -> None:
        x = LEFT + BOX / 2
        self.shapes.append(f'<path class="wire" d="M{x} {self.y} v{height}"/>')
        self.y += height

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        self.shapes.append(f'<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, part: Part, x: float, width: float) -> float:
        """One part; its height is returned, `y` stays."""
        rows = [inner_row(part, inner) for inner in part.inner] if part.detail or len(part.inner) > 1 else []
        height = 26 + LINE * (bool(part.detail) + len(rows))
        style = next((s for s in ("norm", "attn", "mlp") if s in part.name), "box")
        self.shapes.append(f'<rect class="{style}" x="{x}" y="{self.y}" width="{width}" height="{height}" rx="7"/>')
        self.text(x + 12, self.y + 18, f"{part.name}  ", "name")
        kind = f"{part.kind}" + (f"   {as_count(part.parameters)}" if part.parameters else "")
        self.text(x + width - 12, self.y + 18, kind, "small", "end")
        for i, words in enumerate([part.detail, *rows] if part.detail else rows):
            self.text(x + 12 + 12 * (i > 0 or not part.detail), self.y + 18 + LINE * (i + 1), words, "small")
        return height


def inner_row(part: Part, inner: Part) -> str:
    """An inner part in one line."""
    name = inner.name.removeprefix(part.name + ".")
    return f"{name}: {inner.detail or inner.kind}" + (f"   {as_count(inner.parameters)}" if inner.parameters else "")


def as_svg(outline: Outline) -> str:
    """The drawing as an SVG file of its own, for light and dark pages."""
    pen = _Pen([], 30)
    pen.text(20, pen.y, outline.title, "name")
    for words in facts(outline):
        pen.y += LINE
        pen.text(20, pen.y, words, "small")
    pen.y += 26
    pen.text(LEFT + BOX / 2, pen.y, "ids (B, T)", "small", "middle")
    pen.y += 6
    for part in outline.before:
        pen.wire()
        pen.y += _beside(pen, part)
    for group in outline.groups:
        pen.wire(GAP * 2)
        _frame(pen, group)
    for part in outline.after:
        pen.wire()
        pen.y += _beside(pen, part)
    height = pen.y + 24
    described = f"{outline.title}: " + ", ".join(facts(outline))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}" role="img" aria-label="{escape(described)}">\n<style>{STYLE}</style>\n'
        + "\n".join(pen.shapes)
        + "\n</svg>\n"
    )


def _beside(pen: _Pen, part: Part, x: float = LEFT, width: float = BOX) -> float:
    """A part with the shape that leaves it at its side."""
    height = pen.box(part, x, width)
    pen.text(LEFT + BOX + 36, pen.y + height / 2 + 4, part.shape, "small")
    return height


def _frame(pen: _Pen, group: Group) -> None:
    """Blocks that are alike: one drawn, with how many there are."""
    top = pen.y
    count = len(group.layers)
    which = f"layer {group.layers[0]}" if count == 1 else f"layers {group.layers[0]}–{group.layers[-1]}"
    parts = {part.name: part for part in group.parts}
    starts: list[float] = []
    pen.wire()
    for token in steps(group):
        if token == "(":
            starts.append(pen.y)
            pen.wire()
        elif token == "+":
            _join(pen, starts.pop() if starts else pen.y)
        else:
            names = token.split("|")
            width = (BOX - 10 * (len(names) - 1)) / len(names)
            heights = [_beside(pen, parts[n], LEFT + i * (width + 10), width) for i, n in enumerate(names)]
            pen.y += max(heights)
            pen.wire()
    pen.shapes.append(
        f'<rect class="frame" x="{LEFT - 62}" y="{top}" width="{BOX + 84}" height="{pen.y - top}" rx="12"/>'
    )
    pen.text(LEFT + BOX + 36, top + 18, f"{group.kind} × {count}", "name")
    pen.text(LEFT + BOX + 36, top + 36, f"{which}, {as_count(group.parameters)} each", "small")


def _join(pen: _Pen, start: float) -> None:
    """The stream passes its branch on the left, and both are added."""
    x, y = LEFT + BOX / 2, pen.y + 9
    pen.shapes.append(f'<path class="wire" d="M{x} {start} H{LEFT - 30} V{y} H{x - 9}"/>')
    pen.shapes.append(f'<circle class="plus" cx="{x}" cy="{y}" r="9"/>')
    pen.text(x, y + 4.5, "+", "", "middle")
    pen.y += 18
    pen.wire()
