"""The table of rows: one technique, system or worked calculation each, with a stable id."""

import functools
import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Row:
    """One thing that must work.

    `tag` tells where it comes from: S = the heart of the mission, L = its linked material, X = beyond it; the digits
    name the courses.
    """

    id: str
    title: str
    tag: str

    @property
    def area(self) -> str:
        """The letters before the number: `TOK` of `TOK-09`."""
        return self.id.partition("-")[0]


@functools.cache
def _data() -> dict:
    return json.loads(resources.files("groundup.catalogue").joinpath("rows.json").read_text(encoding="utf-8"))


@functools.cache
def all_rows() -> dict[str, Row]:
    """Every row by its id, in the order of the table."""
    return {row["id"]: Row(**row) for row in _data()["rows"]}


def areas() -> dict[str, str]:
    """The areas' names by their letters, in order."""
    return _data()["areas"]
