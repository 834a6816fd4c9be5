"""Training in SentencePiece's way: whole sentences, a space is a symbol, over unigram or over BPE."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.formats.sentencepiece_proto import (
    ModelFile,
    ModelType,
    NormalizerSpec,
    Piece,
    PieceType,
    TrainerSpec,
)
from groundup.tokenizers.sentencepiece.pieces import (
    BOUNDARY,
    UNKNOWN_CHARACTER,
    PieceRules,
    count_characters,
    covered,
)
from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece
from groundup.tokenizers.tokenizer import MAX_ID, SpecialNames
from groundup.tokenizers.training import counting
from groundup.tokenizers.training.nmt_nfkc import NAMES, RuleName, compiled_rules
from groundup.tokenizers.training.score_bpe import learn_score_bpe
from groundup.tokenizers.training.splitting import BySentence
from groundup.tokenizers.training.unigram import UnigramSettings, learn_pieces
from groundup.tokenizers.unigram import byte_piece

Progress = Callable[[int, int], None]
UNKNOWN_PIECE = "<unk>"


@dataclass(frozen=True)
class SentencePieceSettings:
    """What is trained.

    Attributes:
        vocab_size: ids in all.
        model: unigram or bpe.
        normalization: identity, nmt_nfkc, nfkc, nmt_nfkc_cf or nfkc_cf.
        coverage: the share of the text's characters that get a piece of their own.
        byte_fallback: other characters become bytes, not the unknown piece.
        special_tokens: control pieces; they get the first ids.
        symbols: always one token, wherever they stand in text.
        remove_extra_whitespaces: spaces at the ends go, runs become one.
        dummy_prefix: a space goes in front of every text.
        rules: which substrings may be pieces.
        unigram: how the unigram model is learnt.
    """

    vocab_size: int
    model: Literal["unigram", "bpe"] = "unigram"
    normalization: RuleName = "nmt_nfkc"
    coverage: float = 0.9995
    byte_fallback: bool = False
    special_tokens: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    remove_extra_whitespaces: bool = True
    dummy_prefix: bool = True
    rules: PieceRules = field(default_factory=PieceRules)
    unigram: UnigramSettings = field(default_factory=UnigramSettings)

    def check(self) -> None:
        """Raises: UsageError: settings that cannot work."""
        if self.normalization not in NAMES:
            raise UsageError(f"normalization {self.normalization!r} is not known; there are {', '.join(NAMES)}")
        if not 0 < self.coverage <= 1:
            raise UsageError(f"coverage must be above 0 and at most 1, got {self.coverage}")
        given = [*self.special_tokens, UNKNOWN_PIECE, *self.symbols]
        if len(set(given)) != len(given) or not all(given):
            raise UsageError(
                f"special tokens and symbols must be different, not empty and not {UNKNOWN_PIECE}: {given}"
            )
        if not len(self.meta_pieces()) < self.vocab_size <= MAX_ID:
            raise UsageError(
                f"vocab_size {self.vocab_size} must be more than {len(self.meta_pieces())}: so many special tokens, "
                "symbols and bytes are always in"
            )

    def meta_pieces(self) -> list[Piece]:
        """Special tokens, the unknown piece, symbols and bytes: what is not learnt."""
        kinds = [
            (PieceType.CONTROL, self.special_tokens),
            (PieceType.UNKNOWN, (UNKNOWN_PIECE,)),
            (PieceType.USER_DEFINED, self.symbols),
            (PieceType.BYTE, tuple(map(byte_piece, range(256))) if self.byte_fallback else ()),
        ]
        return [Piece(piece, 0.0, int(kind)) for kind, pieces in kinds for piece in pieces]

    def normalizer_spec(self) -> NormalizerSpec:
        """How text is normalized."""
        return NormalizerSpec(
            self.normalization,
            compiled_rules(self.normalization),
            add_dummy_prefix=self.dummy_prefix,
            remove_extra_whitespaces=self.remove_extra_whitespaces,
        )


def train_sentencepiece(
    texts: Iterable[str],
    settings: SentencePieceSettings,
    *,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
) -> SentencePiece:
    """Learn a vocabulary from texts; each line is a sentence. Memory grows with the distinct words.

    Args:
        texts: read once.
        settings: what is trained.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.
        progress: called with (pieces so far, pieces wanted).

    Raises:
        UsageError: settings that cannot work, or a vocabulary too small for the characters.
        DataError: the texts are empty.
    """
    settings.check()
    words = count_words(texts, settings)
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    frequencies = count_characters(words)
    required = covered(frequencies, settings.coverage)
    words = _with_unknown(words, frozenset(required))
    meta = settings.meta_pieces()
    size = settings.vocab_size - len(meta)
    if len(required) > size:
        raise UsageError(
            f"{settings.vocab_size} pieces are too few for {len(required)} characters and {len(meta)} special pieces: "
            "raise vocab_size or lower coverage"
        )
    # A piece that is a special token, a symbol or a byte already must not be learnt again.
    taken = {piece.piece for piece in meta}

    def valid(piece: str) -> bool:
        return piece not in taken and settings.rules(piece)

    required = [character for character in required if character not in taken]
    learnt = _learn(words, size, required, settings, valid, progress)
    file = ModelFile(
        meta + [Piece(piece, score) for piece, score in learnt],
        _trainer_spec(settings, names, len(meta) + len(learnt)),
        settings.normalizer_spec(),
    )
    file.check("the trained model")
    return SentencePiece(file, names=_with_unknown_name(names), chat_template=chat_template)


def _learn(
    words: Mapping[str, int],
    size: int,
    required: Sequence[str],
    settings: SentencePieceSettings,
    valid: Callable[[str], bool],
    progress: Progress | None,
) -> list[tuple[str, float]]:
    if settings.model == "unigram":
        return learn_pieces(words, size, settings.unigram, required=required, valid=valid, progress=progress)
    merged = learn_score_bpe(words, size - len(required), valid, progress)
    # The first merge has the best score; characters come after all merges, the frequent ones first.
    return [(piece, -float(place)) for place, piece in enumerate([*merged, *required])]


def count_words(texts: Iterable[str], settings: SentencePieceSettings) -> Counter[str]:
    """How often each normalized word occurs; symbols of the user are borders between words."""
    apart = (*settings.symbols, *settings.special_tokens)
    return counting.count_words(texts, BySentence(settings.normalizer_spec(), settings.rules, settings.symbols, apart))


def _with_unknown(words: Mapping[str, int], known: frozenset[str]) -> Counter[str]:
    """The words with characters that are not covered replaced by one that no piece holds."""
    table = {ord(c): UNKNOWN_CHARACTER for word in words for c in word if c not in known and c != BOUNDARY}
    if not table:
        return Counter(words)
    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts[word.translate(table)] += count
    return counts


def _with_unknown_name(names: SpecialNames | None) -> SpecialNames:
    names = names or SpecialNames()
    return SpecialNames(names.bos, names.eos, names.pad, UNKNOWN_PIECE)


def _trainer_spec(settings: SentencePieceSettings, names: SpecialNames | None, size: int) -> TrainerSpec:
    names, rules, special = names or SpecialNames(), settings.rules, settings.special_tokens

    def place(token: str | None) -> int:
        return special.index(token) if token in special else -1

    return TrainerSpec(
        model_type=int(ModelType.UNIGRAM if settings.model == "unigram" else ModelType.BPE),
        vocab_size=size,
        character_coverage=settings.coverage,
        shrinking_factor=settings.unigram.keep,
        max_piece_length=rules.longest,
        split_by_unicode_script=rules.by_script,
        split_by_whitespace=rules.by_whitespace,
        split_by_number=rules.by_number,
        treat_whitespace_as_suffix=rules.suffix,
        split_digits=rules.digits_apart,
        allow_whitespace_only_pieces=rules.only_spaces,
        control_symbols=special,
        user_defined_symbols=settings.symbols,
        byte_fallback=settings.byte_fallback,
        unk_id=len(special),
        bos_id=place(names.bos),
        eos_id=place(names.eos),
        pad_id=place(names.pad),
        **{f"{part}_piece": token for part in ("bos", "eos", "pad") if (token := getattr(names, part)) in special},
    )
