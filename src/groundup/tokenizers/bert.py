"""BERT's tokenizer (Devlin et al., 2019): text cleaned, words and signs cut apart, each word cut by WordPiece."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.pipeline.decoders import WordPiece
from groundup.tokenizers.pipeline.normalizers import BertNormalizer
from groundup.tokenizers.pipeline.pipeline import Pipeline
from groundup.tokenizers.pipeline.pre_tokenizers import BertPreTokenizer
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training import counting
from groundup.tokenizers.training.splitting import ByParts
from groundup.tokenizers.training.wordpiece import PREFIX, learn_pieces
from groundup.tokenizers.wordpiece import WordPieceModel

UNKNOWN, CLS, SEP, PAD, MASK = "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)


def bert_tokenizer(
    vocab: Mapping[str, int],
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    chinese_apart: bool = True,
    special_tokens: Sequence[str] = SPECIAL,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> Pipeline:
    """BERT's parts around a WordPiece vocabulary.

    Args:
        vocab: token -> id.
        lowercase: text is brought to lower case.
        strip_accents: accents are taken off letters; None: where text is brought to lower case.
        chinese_apart: each Chinese character is a word.
        special_tokens: those of them that are in the vocabulary become control tokens.
        names: which special tokens are BOS, EOS, ...; [PAD] and [UNK] play their parts if not given.
        chat_template: kept with the tokenizer.
    """
    added = [AddedToken(token, vocab[token]) for token in special_tokens if token in vocab]
    known = {token.content for token in added}
    own = SpecialNames(pad=PAD if PAD in known else None, unk=UNKNOWN if UNKNOWN in known else None)
    return Pipeline(
        WordPieceModel(vocab, unk=(names or own).unk or UNKNOWN),
        added,
        normalizer=BertNormalizer(handle_chinese_chars=chinese_apart, strip_accents=strip_accents, lowercase=lowercase),
        pre_tokenizer=BertPreTokenizer(),
        decoder=WordPiece(prefix=PREFIX, cleanup=True),
        names=names or own,
        chat_template=chat_template,
        post_processor=_around(vocab) if {CLS, SEP} <= known else None,
    )


def _around(vocab: Mapping[str, int]) -> dict[str, Any]:
    """[CLS] text [SEP], and [CLS] first [SEP] second [SEP]: for readers that put them around a text."""

    def special(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    first = [special(CLS, 0), text("A", 0), special(SEP, 0)]
    tokens = {token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in (CLS, SEP)}
    pair = [*first, text("B", 1), special(SEP, 1)]
    return {"type": "TemplateProcessing", "single": first, "pair": pair, "special_tokens": tokens}


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = SPECIAL,
    *,
    score: Literal["likelihood", "frequency"] = "likelihood",
    min_frequency: int = 2,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    chinese_apart: bool = True,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pipeline:
    """Learn a WordPiece vocabulary from texts, cleaned and cut as BERT does.

    Args:
        texts: each is read once.
        vocab_size: number of ids, special tokens and characters included.
        special_tokens: they get the first ids; [UNK] is put in if it is not among them.
        score: what joining two pieces gains (`training/wordpiece.py`).
        min_frequency: rarer pairs are not joined.
        lowercase: see `bert_tokenizer`, as the next two.
        strip_accents: see there.
        chinese_apart: see there.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.
        progress: called with (pieces so far, pieces wanted).

    Raises:
        DataError: the texts are empty.
        UsageError: special tokens that are repeated or empty, or no room for the characters.
    """
    special = list(special_tokens)
    unknown = (names.unk if names else None) or UNKNOWN
    special = special if unknown in special else [*special, unknown]
    if len(set(special)) != len(special) or not all(special):
        raise UsageError(f"special tokens must be different and not empty, got {special}")
    words = count_words(texts, lowercase=lowercase, strip_accents=strip_accents, chinese_apart=chinese_apart)
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    learnt = learn_pieces(words, vocab_size, score=score, min_frequency=min_frequency, first=special, progress=progress)
    named = names or SpecialNames(pad=PAD if PAD in special else None)
    return bert_tokenizer(
        {piece: number for number, piece in enumerate(learnt)},
        lowercase=lowercase,
        strip_accents=strip_accents,
        chinese_apart=chinese_apart,
        special_tokens=special,
        names=SpecialNames(named.bos, named.eos, named.pad, unknown),
        chat_template=chat_template,
    )


def count_words(
    texts: Iterable[str], *, lowercase: bool = True, strip_accents: bool | None = None, chinese_apart: bool = True
) -> Counter[str]:
    """How often each word occurs, cleaned and cut as BERT does."""
    normalizer = BertNormalizer(handle_chinese_chars=chinese_apart, strip_accents=strip_accents, lowercase=lowercase)
    return counting.count_words(texts, ByParts(BertPreTokenizer(), normalizer))
