"""pydocs: the English language reference inside CPython, one document a topic."""

from collections.abc import Iterator

from groundup.data.builtin.stories.items import Document


def documents() -> Iterator[Document]:
    """The topics of `pydoc_data.topics` in alphabetical order; their text is that of the running Python."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield Document(f"pydocs-{name}", topics[name].strip() + "\n", kind="reference")
