"""Templates to HTML. Everything that is put into a page is escaped, unless it is a `Markup` that we made ourselves."""

import base64
import functools
import hashlib
import importlib.util
import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from groundup.base.errors import MissingDependency


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("groundup.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_script"] = json_script
    return environment


def render(template: str, **values: Any) -> str:
    """The page that a template of pages/templates makes of the values."""
    return _environment().get_template(template).render(**values)


@functools.cache
def static(name: str) -> str:
    """A text file of pages/static."""
    return resources.files("groundup.pages").joinpath("static", name).read_text(encoding="utf-8")


def json_script(value: Any) -> Markup:
    """JSON for the inside of <script type="application/json">: `<`, `>` and `&` are escaped.

    So no text in it can close the element or open a comment. NaN and infinity must have been replaced before.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def inline_script(source: str) -> tuple[Markup, str]:
    """A script's text for a page, and the hash that lets the page's Content-Security-Policy admit it alone."""
    assert "</script" not in source.lower()
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return Markup(source), f"'sha256-{digest}'"


@functools.cache
def plotly_js() -> str:
    """The plotly.js that the installed `plotly` package carries; the Python part of plotly is not loaded."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency("plotly", "plots", "drawing charts")
    source = Path(found.submodule_search_locations[0], "package_data", "plotly.min.js").read_text(encoding="utf-8")
    return source.replace("</script", "<\\/script")
