"""`groundup models list`: what can be built or loaded."""

import re
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table
from groundup.base.errors import GroundupError, UsageError, did_you_mean
from groundup.base.folders import builtin_folders
from groundup.commands.command import Command
from groundup.estimates.params import count_parameters
from groundup.models.cards import Card, cards
from groundup.models.catalogue import FAMILIES, sizes

FILTERS = ("norm", "residual", "activation", "positions", "attention", "organisation", "data", "license")

COUNT = r"^(\d+(?:\.\d+)?)([KMBT]?)$"
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}

COLUMNS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv heads": "num_key_value_heads",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}


# Files by whose presence a folder may hold a model.
SIGNS = ("config.json", "params.json", "hparams.json")


class ModelsList(Command):
    """The families, their published sizes, the built-in models, and those in local folders.

    Families are narrowed by words that their cards hold: `--positions rotary --attention grouped --since 2024`; by
    their contexts and sizes too: `--min-context 32768 --max-parameters 10B`.
    """

    folders: CliPositionalArg[list[Path]] = Field(default_factory=lambda: [Path("runs")])
    """Where to look for models, two levels deep; `runs` when not given."""
    family: str | None = None
    """Show one family only: a model_type (`llama`) or a card (`llama3`)."""
    norm: str | None = None
    """Only families whose norm says this."""
    residual: str | None = None
    """Only families whose residual layout says this."""
    activation: str | None = None
    """Only families whose activation says this."""
    positions: str | None = None
    """Only families whose positions say this."""
    attention: str | None = None
    """Only families whose attention says this."""
    organisation: str | None = None
    """Only families of this organisation."""
    data: str | None = None
    """Only families whose data say this: `Pile`, `RefinedWeb`."""
    license: str | None = None
    """Only families whose license says this: `Apache`."""
    min_context: int | None = Field(default=None, gt=0)
    """Only families with a context of at least so many tokens, in any size."""
    min_parameters: str | None = Field(default=None, pattern=COUNT)
    """Only families with a size of at least so many parameters: 7B, 350M."""
    max_parameters: str | None = Field(default=None, pattern=COUNT)
    """Only families with a size of at most so many parameters; with `min_parameters`, one between both."""
    since: str | None = Field(default=None, pattern=r"^\d{4}(-\d{2})?$")
    """Only families since this year or month: 2023, 2023-09."""
    until: str | None = Field(default=None, pattern=r"^\d{4}(-\d{2})?$")
    """Only families until the end of this year or month."""

    def run(self) -> dict[str, Any]:
        """Print three tables: families, published sizes, and the models on this machine."""
        found = self._families()
        narrowed = found != cards()
        named = {size.name for card in found.values() for size in card.sizes}
        published = [_size(name, config) for name, config in sizes().items() if name in named]
        here = [] if narrowed and self.family is None else self._here({card.family for card in found.values()})
        say(family_table(found) if found else "no family is like that")
        for title, rows in (("published sizes", published), ("on this machine", here)):
            if rows:
                say(f"\n{title}\n" + table([[_cell(value) for value in row.values()] for row in rows], rows[0]))
        families = {name: card.model_dump(mode="json", exclude_none=True) for name, card in found.items()}
        return {"families": families, "published": published, "local": here}

    def _families(self) -> dict[str, Card]:
        """The cards that pass every filter."""
        known = cards()
        if self.family is not None:
            if self.family not in {*known, *FAMILIES}:
                raise UsageError(
                    f"no family `{self.family}`.{did_you_mean(self.family, {*known, *FAMILIES})} "
                    f"One of: {', '.join(known)}"
                )
            known = {name: card for name, card in known.items() if self.family in (name, card.family)}
        return {name: card for name, card in known.items() if self._passes(card)}

    def _passes(self, card: Card) -> bool:
        if self.since is not None and card.date < self.since:
            return False
        if self.until is not None and card.date[: len(self.until)] > self.until:
            return False
        if self.min_context is not None and self.min_context > max(contexts(card), default=0):
            return False
        if not self._has_size(card):
            return False
        wanted = {field: getattr(self, field) for field in FILTERS}
        return all(
            word is None or word.lower() in (getattr(card, field) or "").lower() for field, word in wanted.items()
        )

    def _has_size(self, card: Card) -> bool:
        """Whether a size lies between those asked for."""
        if self.min_parameters is None and self.max_parameters is None:
            return True
        low = as_parameters(self.min_parameters) or 0
        high = as_parameters(self.max_parameters) or float("inf")
        known = (as_parameters(size.parameters) for size in card.sizes)
        return any(count is not None and low <= count <= high for count in known)

    def _here(self, families: set[str | None]) -> list[dict[str, Any]]:
        here = [_local(name, path) for name, path in builtin_folders().items()]
        here += [_local(str(path), path) for folder in self.folders for path in model_folders(folder)]
        return here if self.family is None else [model for model in here if model["family"] in families]


def as_parameters(published: str | int | None) -> float | None:
    """Published parameters as a number: `6.7B` is 6.7e9; None where there is no number."""
    found = re.fullmatch(COUNT, str(published))
    return None if found is None else float(found[1]) * UNITS[found[2]]


def contexts(card: Card) -> list[int]:
    """Every context that a card names, in tokens."""
    return [context for context in (card.context, *(size.context for size in card.sizes)) if context is not None]


def family_table(found: dict[str, Card]) -> str:
    """Cards as a table, oldest first."""
    header = ["family", "date", "of", "context", "norm", "activation", "positions", "attention", "sizes"]
    rows = []
    for name, card in found.items():
        counts = ", ".join(str(size.parameters or size.name) for size in card.sizes)
        facts = (card.norm, card.activation, card.positions, card.attention)
        brief = [(fact or "-").split(",")[0].split(";")[0] for fact in facts]
        rows.append([name, card.date, card.organisation, _cell(card.context), *brief, counts])
    return table(rows, header)


def _size(name: str, config: Any) -> dict[str, Any]:
    values = {column: getattr(config, field, None) for column, field in COLUMNS.items()}
    values["kv heads"] = values["kv heads"] or values["heads"]
    return {"name": name, "family": config.model_type, "parameters": _parameters(config), **values}


def _parameters(config: Any) -> int:
    try:
        return count_parameters(config)
    except UsageError:  # a family that estimates do not know: built without data, and counted
        from groundup.models.architecture.counts import parameters_by_part

        return sum(parameters_by_part(config).values())


def _local(name: str, path: Path) -> dict[str, Any]:
    """A model folder as a row; what cannot be read says why in place of its form."""
    from groundup.models.formats.formats import find_format

    try:
        form = find_format(path)
        with form.open(path) as weights:
            config, nbytes = form.config(weights), weights.nbytes
            family, parameters = config.model_type, _parameters(config)
        return {"name": name, "family": family, "parameters": parameters, "bytes": nbytes, "form": form.name}
    except (GroundupError, OSError) as error:
        reason = "unreadable: " + str(error).split("\n")[0].removeprefix(f"{path} ")[:60]
        return {"name": name, "family": None, "parameters": None, "bytes": None, "form": reason}


def model_folders(root: Path) -> list[Path]:
    """The folders at or up to two levels below `root` that may hold a model."""
    if not root.is_dir():
        return []
    found = {file.parent for depth in ("", "*/", "*/*/") for sign in SIGNS for file in root.glob(depth + sign)}
    return sorted(found)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
