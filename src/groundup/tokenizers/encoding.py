"""Ids with what is known about each: its token, and where it stands in the text."""

from dataclasses import dataclass, field

from groundup.tokenizers.pipeline.alignment import Span


@dataclass
class Encoding:
    """A text, or two, as tokens.

    Attributes:
        ids: token ids.
        tokens: what each token looks like inside: for those of the vocabulary their spelling there, for added tokens
            the text they were found as.
        offsets: for each token where it stands in the text as written: (start, end) in characters, `end` not included.
            The bytes of one character all have its span; tokens that were put in have (0, 0).
        type_ids: 0 for the first text, 1 for the second, as the post-processor says.
    """

    ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    offsets: list[Span] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, id: int, token: str, offset: Span = (0, 0), type_id: int = 0) -> None:
        """Put one more token at the end."""
        self.ids.append(id)
        self.tokens.append(token)
        self.offsets.append(offset)
        self.type_ids.append(type_id)

    def extend(self, other: "Encoding") -> None:
        """Put the tokens of another one at the end."""
        self.ids.extend(other.ids)
        self.tokens.extend(other.tokens)
        self.offsets.extend(other.offsets)
        self.type_ids.extend(other.type_ids)
