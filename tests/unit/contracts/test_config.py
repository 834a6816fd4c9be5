"""The contract of Config: frozen, closed, readable back, with help and the nearest known name."""

import subprocess
import sys
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from groundup.base.config import Config, one_of
from groundup.base.errors import UsageError


class Shape(Config):
    """A union of variants."""


class Circle(Shape):
    kind: Literal["circle"] = "circle"
    radius: float = Field(default=1.0, gt=0)
    """Half its width."""


class Box(Shape):
    kind: Literal["box"] = "box"
    sides: tuple[int, ...] = (1, 1)


class Drawing(Config):
    """What the tests describe."""

    title: str = "untitled"
    """What it is called."""
    shape: one_of(Shape) = Circle()  # pyright: ignore[reportInvalidTypeForm]
    layers: dict[str, int] = {}
    opacity: float | None = None


def test_frozen_and_closed():
    drawing = Drawing()
    with pytest.raises(ValidationError):
        drawing.title = "other"
    with pytest.raises(UsageError, match=r"page: 1 problem\n  `titel` is not a setting. Did you mean `title`\?"):
        Drawing.parse({"titel": "x"}, where="page")
    with pytest.raises(UsageError, match=r"`opacity`.*got 'much'"):
        Drawing.parse({"opacity": "much"})
    with pytest.raises(UsageError, match="2 problems"):
        Drawing.parse({"titel": "x", "opacity": "much"})


def test_variants_are_told_apart_by_their_kind():
    assert Drawing.parse({"shape": {"kind": "box", "sides": [2, 3]}}).shape == Box(sides=(2, 3))
    assert Drawing.parse({"shape": {"radius": 2}}).shape == Circle(radius=2)  # the default's kind
    with pytest.raises(UsageError, match=r"shape\.circle\.sides.* is not a setting"):
        Drawing.parse({"shape": {"sides": [1]}})
    with pytest.raises(UsageError, match=r"`shape\.circle\.radius`: .*greater than 0"):
        Drawing.parse({"shape": {"radius": -1}})
    with pytest.raises(UsageError, match="'circle', 'box'"):
        Drawing.parse({"shape": {"kind": "star"}})


def test_a_misspelt_kind_names_the_nearest():
    with pytest.raises(UsageError, match="Did you mean `circle`"):
        Drawing.parse({"shape": {"kind": "circel"}})


NAMES = st.text(min_size=1, max_size=8)
SHAPES = st.one_of(
    st.builds(Circle, radius=st.floats(1e-9, 1e9)), st.builds(Box, sides=st.lists(st.integers(), max_size=3).map(tuple))
)
DRAWINGS = st.builds(
    Drawing,
    title=st.text(),
    shape=SHAPES,
    layers=st.dictionaries(NAMES, st.integers(), max_size=3),
    opacity=st.none() | st.floats(allow_nan=False, allow_infinity=True),
)


@settings(max_examples=60, deadline=None)
@given(DRAWINGS)
def test_yaml_gives_the_same_back(drawing):
    assert Drawing.parse(yaml.safe_load(drawing.to_yaml())) == drawing


def test_yaml_files_give_the_same_back(tmp_path):
    drawing = Drawing(title="Größe\x85: 'a'\n# b", shape=Box(sides=()), layers={"1": 2, "\u2028": 0}, opacity=1e-12)
    (tmp_path / "drawing.yaml").write_text(drawing.to_yaml(), encoding="utf-8")
    assert Drawing.from_yaml(tmp_path / "drawing.yaml") == drawing
    assert "Größe" in Drawing(title="Größe").to_yaml()


@pytest.mark.parametrize(("content", "message"), [
    (b"title: [1, 2", r"x\.yaml is not valid YAML.*line 1"),
    (b"- a\n- b\n", "must hold a mapping of settings, found list"),
    (b"", "is empty"),
    (b"title: \xff", "x.yaml is not valid YAML"),
    (b"title: a\ntitle: b\n", "`title` stands twice.*line 2"),
    (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
    (b"layers: {a: x}", r"`layers\.a`"),
])  # fmt: skip
def test_broken_files_name_file_and_place(tmp_path, content, message):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=f"(?s){message}"):
        Drawing.from_yaml(tmp_path / "x.yaml")


def test_numbers_as_people_write_them(tmp_path):
    """YAML 1.1 reads 1e-3 as a text; pydantic turns it into the number that is meant."""
    (tmp_path / "x.yaml").write_text("opacity: 1e-3\nshape: {radius: 5e2}\n")
    drawing = Drawing.from_yaml(tmp_path / "x.yaml")
    assert (drawing.opacity, drawing.shape.radius) == (1e-3, 500.0)


def test_missing_file():
    with pytest.raises(UsageError, match=r"no settings file at nowhere\.yaml"):
        Drawing.from_yaml("nowhere.yaml")


def test_the_text_below_a_field_is_its_help():
    assert Drawing.model_fields["title"].description == "What it is called."


def test_every_command_documents_every_setting_and_starts_without_torch():
    """Loading all verbs' Configs imports no torch; every field of each says what it is."""
    code = """
import sys
from groundup.cli import VERBS, load_command
bare = []
for verb in VERBS:
    try:
        cls = load_command(verb)
    except ModuleNotFoundError as error:
        assert error.name.startswith("groundup.commands."), error
        continue
    assert cls.__doc__, verb
    bare += [f"{verb}: {name}" for name, field in cls.model_fields.items() if not field.description]
assert not bare, bare
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
