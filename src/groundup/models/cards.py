"""Cards: what is publicly known of each model family, one YAML file each in `cards/`. No torch here."""

import functools
from pathlib import Path

from pydantic import Field, PositiveInt

from groundup.base.config import Config
from groundup.base.errors import UsageError, did_you_mean
from groundup.models.catalogue import FAMILIES

FOLDER = Path(__file__).parent / "cards"
MONTH = r"^\d{4}-\d{2}$"


class CardSize(Config):
    """One published size."""

    name: str
    """As in the family's config, where its code is here."""
    parameters: str | int | None = None
    """As published: `6.7B`, or the number."""
    active: str | None = None
    """Parameters that work on one token, where not all do."""
    tokens: str | None = None
    """Tokens it was trained on: `1.4T`."""
    context: PositiveInt | None = None
    """Tokens of context, where they are not the family's."""
    date: str | None = Field(default=None, pattern=MONTH)
    """Year and month of its release, where it is not the family's."""
    layers: PositiveInt | None = None
    """Blocks, where no code here builds it: else they stand in the config."""
    width: PositiveInt | None = None
    """Of the residual stream, where no code here builds it."""
    heads: PositiveInt | None = None
    """Query heads, where no code here builds it."""
    kv_heads: PositiveInt | None = None
    """Key-value heads, where no code here builds it and they are fewer."""
    vocabulary: PositiveInt | None = None
    """Token ids, where no code here builds it."""
    unconfirmed: list[str] = []
    """Those of the fields above that no source confirms so far."""


class Stage(Config):
    """One step of a pipeline that makes a model from another."""

    name: str
    """What is done."""
    prompts: PositiveInt | None = None
    """Prompts that it is trained on."""
    origin: str | None = None
    """Who wrote them."""
    how: str | None = None
    """Of what, with what, towards what."""


class Number(Config):
    """One published result."""

    benchmark: str
    """What was measured, and how: `MMLU, 5-shot`."""
    size: str
    """Of which size."""
    value: float | str
    """The result, in the unit of the source (percent where none is named)."""
    source: str
    """Where it is published."""
    unconfirmed: bool = False
    """Whether it was written down without a look at that source."""


class Card(Config):
    """What is known of a family."""

    title: str
    """Its name in prose."""
    organisation: str
    """Who made it."""
    date: str = Field(pattern=MONTH)
    """Year and month of the paper or the release."""
    paper: str | None = None
    """Authors, year, title."""
    family: str | None = None
    """The model_type whose code builds it; that of the file's name when there is such a family."""
    ancestor: str | None = None
    """The card it descends from."""
    differs: list[str] = []
    """What it changes in its ancestor."""
    norm: str | None = None
    """Normalisation."""
    residual: str | None = None
    """Where the norms stand."""
    activation: str | None = None
    """Of the feed-forward network."""
    positions: str | None = None
    """How order is known."""
    attention: str | None = None
    """Kind of attention."""
    data: str | None = None
    """What it was trained on."""
    license: str | None = None
    """Of the weights."""
    context: PositiveInt | None = None
    """Longest context, in tokens."""
    sizes: list[CardSize] = []
    """Published sizes."""
    stages: list[Stage] = []
    """The steps of its making, where they are what the paper is about."""
    withheld: list[str] = []
    """What its makers say they do not tell."""
    numbers: list[Number] = []
    """Published results."""
    rows: list[str] = []
    """Rows of the catalogue that real weights of it confirm."""
    notes: str | None = None
    """What else is worth knowing."""
    unconfirmed: list[str] = []
    """Those of the fields above that no source confirms so far, beyond what the code and its references prove."""


@functools.cache
def cards() -> dict[str, Card]:
    """Every card by name, oldest first."""
    found = {}
    for file in FOLDER.glob("*.yaml"):
        card = Card.from_yaml(file)
        if card.family is None and file.stem in FAMILIES:
            card = card.model_copy(update={"family": file.stem})
        found[file.stem] = card
    return dict(sorted(found.items(), key=lambda item: (item[1].date, item[0])))


def card_of(name: str) -> Card:
    """A card by its name or by the name of one of its sizes; `UsageError` otherwise."""
    known = cards()
    if name in known:
        return known[name]
    for card in known.values():
        if any(size.name == name for size in card.sizes):
            return card
    names = [*known, *(size.name for card in known.values() for size in card.sizes)]
    raise UsageError(f"no card of `{name}`.{did_you_mean(name, names)} Families: {', '.join(known)}")
