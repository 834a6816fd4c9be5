"""SentencePiece's table of replacements as a normalizer of tokenizer.json."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import regex

from groundup.base.errors import CheckpointError
from groundup.tokenizers.pipeline.alignment import Traced, follow
from groundup.tokenizers.pipeline.charsmap import CharsMap
from groundup.tokenizers.pipeline.normalizing import Normalizer
from groundup.tokenizers.pipeline.parts import Part

_CLUSTER = regex.compile(r"\X")


@dataclass(frozen=True)
class Precompiled(Normalizer):
    """SentencePiece's table of replacements, applied to grapheme clusters as the `tokenizers` library does.

    A cluster of up to five bytes is replaced as a whole by what the shortest key it begins with stands for; in others
    each character is replaced on its own.
    """

    precompiled_charsmap: str = field(repr=False)
    type = "Precompiled"
    LONGEST: ClassVar[int] = 5

    @classmethod
    def from_json(cls, part: Part) -> Self:
        made = super().from_json(part)
        try:
            made._map  # noqa: B018
        except CheckpointError as error:
            raise CheckpointError(f"{part.where}: {error}") from None
        return made

    @cached_property
    def _map(self) -> CharsMap | None:
        if not self.precompiled_charsmap:
            return None
        try:
            return CharsMap(base64.b64decode(self.precompiled_charsmap, validate=True))
        except (binascii.Error, ValueError) as error:
            raise CheckpointError(f"precompiled_charsmap is not base64: {error}") from None

    @cached_property
    def _known(self) -> dict[str, list[tuple[str, str]]]:
        return {}

    def _replaced(self, cluster: str) -> list[tuple[str, str]]:
        """(old, new) parts of a cluster."""
        assert self._map is not None
        if len(whole := cluster.encode("utf-8")) <= self.LONGEST:
            found = self._map.shortest(whole)
            if found is not None:
                return [(cluster, found)]
        parts = [(character, self._map.shortest(character.encode("utf-8"))) for character in cluster]
        return [(old, old if new is None else new) for old, new in parts]

    def _parts(self, text: str) -> Iterator[tuple[str, str]]:
        known = self._known
        for cluster in _CLUSTER.findall(text):
            parts = known.get(cluster)
            if parts is None:
                parts = self._replaced(cluster)
                if len(cluster) <= self.LONGEST and len(known) < 2**16:
                    known[cluster] = parts
            yield from parts

    def apply(self, text: str, first: bool = True) -> str:
        return text if self._map is None else "".join(new for _, new in self._parts(text))

    def trace(self, text: str, first: bool = True) -> Traced:
        if self._map is None:
            return text, range(len(text))
        changes: list[int] = []
        parts = list(self._parts(text))
        for old, new in parts:
            grown = len(new) - len(old)
            changes.extend([0] * (len(new) - max(grown, 0)) + [1] * max(grown, 0))
            if grown < 0 and changes:
                changes[-1] += grown
        return "".join(new for _, new in parts), follow(changes, len(text))
