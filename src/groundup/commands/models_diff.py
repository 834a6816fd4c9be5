"""`groundup models diff A B`: what changed from one model to another."""

import textwrap
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table
from groundup.base.errors import UsageError
from groundup.commands.command import Command
from groundup.models.architecture.difference import Row, card_rows, config_rows, in_words, outline_rows
from groundup.models.cards import Card, card_of, cards
from groundup.models.catalogue import config_of_size, sizes

NARROW = 44


class ModelsDiff(Command):
    """What changed from one model to another: in words, along the papers' lineage, and as a table of both."""

    a: CliPositionalArg[str]
    """A family (`llama2`), a published size (`llama-2-70b`), or a model folder."""
    b: CliPositionalArg[str]
    """The other."""
    all: bool = False
    """Show what is equal too."""

    def run(self) -> dict[str, Any]:
        """Print words and table."""
        (name_a, card_a, config_a), (name_b, card_b, config_b) = (look_up(name) for name in (self.a, self.b))
        words = in_words(name_a, name_b) if name_a and name_b else []
        rows = card_rows(card_a, card_b)
        if config_a is not None and config_b is not None:
            from groundup.models.architecture.trace import outline

            rows += outline_rows(outline(config_a), outline(config_b))
            rows += config_rows(*(c.model_dump(mode="json", exclude={"kept"}) for c in (config_a, config_b)))
        shown = [row for row in rows if (self.all or not row.same) and (row.a, row.b) != ("-", "-")]
        say("\n".join(words) + "\n" if words else "")
        say(side_by_side(shown, self.a, self.b) if shown else "they are the same")
        differences = [{"what": row.what, "a": row.a, "b": row.b, "same": row.same} for row in shown]
        return {"a": self.a, "b": self.b, "words": words, "rows": differences}


def look_up(name: str) -> tuple[str | None, Card | None, Any]:
    """(name of the card, card, config) of a family, a size or a folder; what there is not is None."""
    if Path(name).exists():
        from groundup.models.formats.formats import find_format, find_weights

        path = find_weights(name)
        form = find_format(path)
        with form.open(path) as weights:
            config = form.config(weights)
        known = next((n for n, card in cards().items() if card.family == config.model_type), None)
        return known, cards().get(known or ""), config
    try:
        card = card_of(name)
    except UsageError:
        if name not in sizes():
            raise
        return None, None, config_of_size(name)
    known = next(n for n, each in cards().items() if each is card)
    built = name if name in sizes() else next((s.name for s in card.sizes if s.name in sizes()), None)
    return known, card, None if built is None else config_of_size(built)


def side_by_side(rows: list[Row], a: str, b: str) -> str:
    """A table whose long cells are wrapped."""
    lines = []
    for row in rows:
        cells = [textwrap.wrap(text, NARROW) or [""] for text in (row.a, row.b)]
        for i in range(max(map(len, cells))):
            lines.append([row.what if i == 0 else "", *(cell[i] if i < len(cell) else "" for cell in cells)])
    return table(lines, ["", a, b])
