"""The documents: links lead somewhere, commands and make targets exist, Python and YAML blocks parse."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from groundup.base.errors import UsageError
from groundup.cli import find_verb

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def broken_links(text: str, folder: Path) -> list[str]:
    """Links to files that are not there, and to headings that no document has."""
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"(https?|mailto):", target):
            continue
        name, _, heading = target.partition("#")
        file = folder / name if name else None
        if (file is not None and not file.exists()) or (
            heading and heading not in headings(file.read_text(encoding="utf-8") if file else text)
        ):
            broken.append(target)
    return broken


def headings(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def unknown_commands(text: str) -> list[str]:
    """`groundup VERB ...` and `make TARGET` in code that do not exist; VERB and NAME in capitals stand for any."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    unknown = [f"make {name}" for name in re.findall(r"`make ([a-z-]+)", text) if name not in targets]
    for words in re.findall(r"(?:^ {4,}|^\$ |`|\| )groundup ((?:[a-z][a-z-]* ?){1,2})", text, re.M):
        try:
            find_verb(words.split())
        except UsageError:
            unknown.append(f"groundup {words}")
    return unknown


def blocks_that_do_not_parse(text: str) -> list[str]:
    """The first line of each Python or YAML block with an error."""
    broken = []
    for language, block in re.findall(r"^```(python|yaml)\n(.*?)^```", text, re.M | re.S):
        try:
            ast.parse(block) if language == "python" else yaml.safe_load(block)
        except (SyntaxError, yaml.YAMLError):
            broken.append(block.partition("\n")[0])
    return broken


@every_document
def test_links_lead_somewhere(path):
    assert not broken_links(path.read_text(encoding="utf-8"), path.parent)


@every_document
def test_commands_exist(path):
    assert not unknown_commands(path.read_text(encoding="utf-8"))


@every_document
def test_code_parses(path):
    assert not blocks_that_do_not_parse(path.read_text(encoding="utf-8"))


def test_every_page_is_linked_from_the_index():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def test_faults_are_seen():
    assert broken_links("[a](absent.md) [b](#none) [c](#here)\n# Here", ROOT) == ["absent.md", "#none"]
    assert unknown_commands("`groundup quickstrt x` `make nothing`\n    groundup chatt\n") == [
        "make nothing",
        "groundup quickstrt x",
        "groundup chatt",
    ]
    assert unknown_commands("`groundup tokenizer train` `groundup VERB` `make test`") == []
    assert blocks_that_do_not_parse("```python\nx = (\n```\n```yaml\na: [\n```\n```python\nx = 1\n```\n") == [
        "x = (",
        "a: [",
    ]
