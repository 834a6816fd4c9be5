"""pydocs: the English language reference inside CPython, one document a topic.

Topics repeat each other: `if` and `for` stand whole inside `compound`. A topic whose lines occur in larger ones is left
out, so that text held out by topic is text that no training topic holds.
"""

from collections.abc import Iterator, Mapping

from groundup.data.builtin.stories.items import Document

TELLING = 20
"""Characters above which a line counts; shorter ones, such as `Examples:`, occur everywhere."""
MOST = 0.1
"""Share of a topic's telling lines that may stand in a larger topic."""


def documents() -> Iterator[Document]:
    """The topics of `pydoc_data.topics` in alphabetical order, without those that repeat others; their text is that of
    the running Python.
    """
    from pydoc_data.topics import topics

    for name in sorted(distinct(topics)):
        yield Document(f"pydocs-{name}", topics[name].strip() + "\n", kind="reference")


def distinct(topics: Mapping[str, str]) -> list[str]:
    """The names of the topics that do not repeat those before them, the largest first."""
    kept: list[str] = []
    seen: set[str] = set()
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        lines = telling_lines(topics[name])
        if not lines or len(lines & seen) <= MOST * len(lines):
            kept.append(name)
            seen |= lines
    return kept


def telling_lines(text: str) -> set[str]:
    """The lines of more than `TELLING` characters, without the space around them."""
    return {line.strip() for line in text.split("\n") if len(line.strip()) > TELLING}
