"""What differs between two models: in words along their ancestry, and number by number."""

from dataclasses import dataclass
from typing import Any

from groundup.models.architecture.drawing import as_count
from groundup.models.architecture.outline import Group, Outline
from groundup.models.cards import Card, cards

FACTS = (
    "organisation",
    "date",
    "norm",
    "residual",
    "activation",
    "positions",
    "attention",
    "context",
    "data",
    "license",
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a property and its value in both; "-" where one has none."""

    what: str
    a: str
    b: str

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return self.a == self.b


def lineage(name: str) -> list[str]:
    """A card and its ancestors, the oldest last."""
    known, found = cards(), [name]
    while (ancestor := known[found[-1]].ancestor) in known and ancestor not in found:
        found.append(ancestor)  # type: ignore[arg-type]
    return found


def in_words(a: str, b: str) -> list[str]:
    """How the papers say it: what each changed on the way from their nearest common ancestor."""
    known, up_a, up_b = cards(), lineage(a), lineage(b)
    common = next((name for name in up_a if name in up_b), None)
    lines = []
    for end, path in ((a, up_a), (b, up_b)):
        steps = path[: path.index(common)] if common is not None else path
        for name in reversed(steps):
            ancestor = known[name].ancestor
            origin = f" (from {known[ancestor].title})" if ancestor in known else ""
            lines.append(f"{known[name].title}{origin}:")
            lines += [f"  - {words}" for words in known[name].differs] or ["  - nothing is noted"]
        if not steps and end != common:
            lines.append(f"{known[end].title}: nothing is noted")
    return lines


def card_rows(a: Card | None, b: Card | None) -> list[Row]:
    """The cards, fact by fact."""
    return [Row(fact, _fact(a, fact), _fact(b, fact)) for fact in FACTS]


def config_rows(a: dict[str, Any], b: dict[str, Any]) -> list[Row]:
    """The configs, field by field, in the order of the first."""
    names = [*a, *(name for name in b if name not in a)]
    return [Row(name, _value(a.get(name)), _value(b.get(name))) for name in names]


def outline_rows(a: Outline, b: Outline) -> list[Row]:
    """What was measured on the models themselves."""
    rows = [
        Row("parameters", f"{a.parameters:,}", f"{b.parameters:,}"),
        Row("operations a token", *(as_count(o.flops) if o.flops else "-" for o in (a, b))),
        Row("state a token, bytes (bf16)", *(_value(o.state_bytes) for o in (a, b))),
        Row("blocks", *(_blocks(o.groups) for o in (a, b))),
    ]
    names = dict.fromkeys(part.name for o in (a, b) for group in o.groups for part in group.parts)
    return rows + [Row(name, _part(a, name), _part(b, name)) for name in names]


def _blocks(groups: tuple[Group, ...]) -> str:
    return ", ".join(f"{len(group.layers)} × {group.kind}" for group in groups)


def _part(outline: Outline, name: str) -> str:
    """A part of the blocks; of each kind once."""
    said = [
        ": ".join(word for word in (part.kind, part.detail) if word)
        for group in outline.groups
        for part in group.parts
        if part.name == name
    ]
    return " | ".join(dict.fromkeys(said)) or "-"


def _fact(card: Card | None, fact: str) -> str:
    return "-" if card is None else _value(getattr(card, fact))


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
