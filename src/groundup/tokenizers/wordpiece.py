"""WordPiece (Schuster and Nakajima, 2012; BERT, Devlin et al., 2019): the longest token that fits, from left to right.

A token inside a word is spelled with a prefix (`##`). A word that cannot be cut entirely is one unknown token.

Two ways with the same result: looking up ever shorter slices, for words of usual length, and for longer ones a trie
with failure links, whose time is linear in the word (LinMaxMatch: Song et al., 2021, Fast WordPiece Tokenization).
What differs from the paper: words and insides of words have a trie each, so a word that spells `##` itself is cut as
the plain algorithm cuts it.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from groundup.base.errors import CheckpointError, UsageError

SHORT = 64  # characters; up to here slices are quicker than the trie


class WordPieceModel:
    """How a WordPiece vocabulary cuts one word.

    Args:
        vocab: token -> id.
        unk: the token of a word that cannot be cut.
        prefix: what tokens inside a word begin with.
        max_word: a word of more characters is unknown.

    Raises:
        CheckpointError: `max_word` is negative.
    """

    def __init__(self, vocab: Mapping[str, int], *, unk: str = "[UNK]", prefix: str = "##", max_word: int = 100):
        if max_word < 0:
            raise CheckpointError(f"max_input_chars_per_word is {max_word}: a number from 0 on is expected")
        self.vocab = vocab
        self.unk, self.prefix, self.max_word = unk, prefix, max_word
        self.longest = max(map(len, vocab), default=0)

    def cut(self, word: str) -> list[tuple[int, int]]:
        """(id, end) of each token; `end` is the offset in characters where it ends.

        Raises:
            UsageError: the word is unknown, and so is the unknown token.
        """
        if not word:
            return []
        found = None
        if len(word) <= self.max_word:
            found = self._by_slices(word) if len(word) <= SHORT else self._automaton.cut(word)
        return found if found is not None else [(self._unknown(word), len(word))]

    def _unknown(self, word: str) -> int:
        number = self.vocab.get(self.unk)
        if number is None:
            raise UsageError(
                f"the word {word!r:.80} cannot be cut, and the unknown token {self.unk!r} is not in the vocabulary"
            )
        return number

    def _by_slices(self, word: str) -> list[tuple[int, int]] | None:
        """The cut, or None where some place has no token that fits."""
        find, size, prefix = self.vocab.get, len(word), ""
        pieces: list[tuple[int, int]] = []
        start = 0
        while start < size:
            for end in range(min(size, start + self.longest), start, -1):
                number = find(prefix + word[start:end])
                if number is not None:
                    break
            else:
                return None
            pieces.append((number, end))
            start, prefix = end, self.prefix
        return pieces

    @cached_property
    def _automaton(self) -> "_Automaton":
        return _Automaton(self.vocab, self.prefix)

    def to_json(self) -> dict[str, Any]:
        """The `model` of a tokenizer.json."""
        return {
            "type": "WordPiece",
            "unk_token": self.unk,
            "continuing_subword_prefix": self.prefix,
            "max_input_chars_per_word": self.max_word,
            "vocab": dict(self.vocab),
        }


# The tokens to emit at a failure: none, one id, or two such things in order. Sharing keeps the table small.
_Rope = int | tuple["_Rope", "_Rope"] | None

_START, _INSIDE, _NOWHERE = 0, 1, -1


class _Automaton:
    """Two tries (words from their start, and their insides) with failure links.

    Where node v has no child for the next character, the tokens `emit[v]` are certain, and matching goes on at
    `fail[v]`, the node of what is then left of v's string; `_NOWHERE`: the word has no cut.
    """

    def __init__(self, vocab: Mapping[str, int], prefix: str):
        self.children: list[dict[str, int]] = [{}, {}]
        self.token: list[int | None] = [None, None]
        self.length: dict[int, int] = {}  # of the token as it stands inside a word, in characters
        self.first_length = {number: len(token) for token, number in vocab.items()}
        for token, number in vocab.items():
            self._insert(_START, token, number)
            if token.startswith(prefix):
                self.length[number] = len(token) - len(prefix)
                self._insert(_INSIDE, token[len(prefix) :], number)
        self.fail = [_NOWHERE] * len(self.children)
        self.emit: list[_Rope] = [None] * len(self.children)
        self._link()

    def _insert(self, node: int, spelling: str, number: int) -> None:
        if not spelling:
            return
        for character in spelling:
            following = self.children[node].get(character)
            if following is None:
                following = self.children[node][character] = len(self.children)
                self.children.append({})
                self.token.append(None)
            node = following
        self.token[node] = number

    def _link(self) -> None:
        """Failure links, the shorter strings first."""
        level = [_START, _INSIDE]
        while level:
            for parent in level:
                for character, node in self.children[parent].items():
                    self._link_one(parent, character, node)
            level = [node for parent in level for node in self.children[parent].values()]

    def _link_one(self, parent: int, character: str, node: int) -> None:
        if (number := self.token[node]) is not None:
            self.emit[node], self.fail[node] = number, _INSIDE
            return
        # As in matching: what is left of the parent's string, and then the character.
        tokens, place = self.emit[parent], self.fail[parent]
        while place != _NOWHERE and character not in self.children[place]:
            tokens = _joined(tokens, self.emit[place])
            place = self.fail[place]
        if place != _NOWHERE:
            self.emit[node], self.fail[node] = tokens, self.children[place][character]

    def cut(self, word: str) -> list[tuple[int, int]] | None:
        """(id, end) of each token, or None where the word has no cut."""
        ids: list[int] = []
        node, children, fail = _START, self.children, self.fail
        for character in word:
            while (following := children[node].get(character)) is None:
                if fail[node] == _NOWHERE:
                    return None
                ids.extend(_flat(self.emit[node]))
                node = fail[node]
            node = following
        while node != _INSIDE:
            if fail[node] == _NOWHERE:
                return None
            ids.extend(_flat(self.emit[node]))
            node = fail[node]
        return list(self._with_ends(ids))

    def _with_ends(self, ids: list[int]) -> Iterator[tuple[int, int]]:
        end = self.first_length[ids[0]]
        yield ids[0], end
        for number in ids[1:]:
            end += self.length[number]
            yield number, end


def _joined(first: _Rope, second: _Rope) -> _Rope:
    if first is None or second is None:
        return first if second is None else second
    return first, second


def _flat(rope: _Rope) -> Iterator[int]:
    rest = [rope]
    while rest:
        top = rest.pop()
        if isinstance(top, tuple):
            rest.extend((top[1], top[0]))
        elif top is not None:
            yield top
