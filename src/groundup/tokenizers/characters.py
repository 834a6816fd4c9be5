"""One token a character: the smallest tokenizer, with the longest sequences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer, without_surrogates

UNKNOWN = "<|unk|>"


class Characters(Tokenizer):
    """Every character of the vocabulary is a token.

    With an unknown token (`names.unk`) other characters become it; without one they are errors.
    """

    kind = "characters"
    in_processes = False  # one look into a table a character: to send it would take as long

    def __init__(
        self,
        vocab: Mapping[str, int],
        added_tokens: Iterable[AddedToken] = (),
        *,
        names: SpecialNames | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        super().__init__(vocab, added_tokens, names=names, chat_template=chat_template, post_processor=post_processor)
        self.model_vocab = dict(vocab)
        self._ids = {token: number for token, number in vocab.items() if token not in self.special_tokens}

    def _encode_text(self, text: str) -> list[int]:
        if self.unk_id is not None:
            return [self._ids.get(character, self.unk_id) for character in text]
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            place = next(i for i, character in enumerate(text) if character not in self._ids)
            raise UsageError(_unknown(text, place)) from None

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        from groundup.tokenizers.files import characters_to_json

        return characters_to_json(self)


def _unknown(text: str, place: int) -> str:
    line = text.count("\n", 0, place) + 1
    return (
        f"character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} (line {line}) is not in the "
        "vocabulary: train on text that has it, or with an unknown token (`unk`)"
    )


def train_characters(
    texts: Iterable[str],
    special_tokens: Sequence[str] = (),
    *,
    unk: bool = False,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> Characters:
    """The characters of `texts`, in order of their code points, after the special tokens.

    Args:
        texts: each is read once.
        special_tokens: control tokens; they get the first ids.
        unk: add `<|unk|>` for characters that are not in the texts.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.

    Raises:
        DataError: the texts are empty.
        UsageError: a special token is repeated, or is a single character.
    """
    found: set[str] = set()
    for text in texts:
        found.update(without_surrogates(text))
    if not found:
        raise DataError("there is no text to learn from: the input is empty")
    names = names or SpecialNames()
    special = list(special_tokens)
    if unk:
        names = SpecialNames(names.bos, names.eos, names.pad, names.unk or UNKNOWN)
        special = list(dict.fromkeys([*special, names.unk or UNKNOWN]))
    if len(set(special)) != len(special) or any(len(token) < 2 for token in special):
        raise UsageError(f"special tokens must be different and longer than one character, got {special}")
    vocab = {token: number for number, token in enumerate([*special, *sorted(found)])}
    added = [AddedToken(token, vocab[token]) for token in special]
    return Characters(vocab, added, names=names, chat_template=chat_template)
