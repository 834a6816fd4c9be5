"""The tokenizer inside a GGUF file: the keys `tokenizer.ggml.*`, both ways.

Two kinds have a place there. `gpt2` is byte-level BPE: tokens, merges, and in `pre` the name of the rule by which text
is cut. `llama` is SentencePiece's BPE: pieces with scores, and bytes for what no piece covers. Whatever would make
llama.cpp give other ids is refused by name. Ids without a token are spelled `[PADn]`, up to the rows of the embedding.

llama.cpp brings no text to a normal form: Qwen's and GPT-NeoX's NFC is noted in a key of our own, which it passes over.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.gguf_container import MAGIC, GGUFFile
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE
from groundup.tokenizers.formats.bounded import head
from groundup.tokenizers.formats.sentencepiece_proto import (
    ModelFile,
    ModelType,
    NormalizerSpec,
    Piece,
    PieceType,
    TrainerSpec,
)
from groundup.tokenizers.pretokenize import PATTERNS
from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
NORMAL_FORM = "groundup.tokenizer.normal_form"
UNSET_SCORE = -1000.0

# llama.cpp's name of a rule -> (our pattern, whether a piece that is a token as a whole is that token).
RULES: dict[str, tuple[str, bool]] = {
    "gpt-2": ("gpt2", False),
    "llama-bpe": ("llama3", True),
    "dbrx": ("llama3", False),
    "qwen2": ("qwen2", False),
}
ALIASES = {
    **dict.fromkeys(("phi-2", "olmo", "mpt"), "gpt-2"),
    **dict.fromkeys(("llama3", "llama-v3"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2"), "qwen2"),
    "smaug-bpe": "dbrx",
}
PARTS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def sniff(path: str | Path) -> bool:
    """Whether the file begins as a GGUF file does."""
    return head(path, 4) == MAGIC


def read(path: str | Path) -> Tokenizer:
    """The tokenizer in a GGUF file.

    Raises:
        CheckpointError: a damaged file, none inside, or one of a kind that is not known here.
    """
    with GGUFFile(path) as file:
        return from_metadata(file.metadata, str(path))


# -- writing ----------------------------------------------------------------------------------------------------------


def to_metadata(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """The keys that say what the tokenizer is.

    Args:
        tokenizer: byte-level BPE or SentencePiece's BPE.
        rows: of the model's embedding: as many tokens are written.

    Raises:
        UsageError: llama.cpp has no place for it; the message says what.
        CheckpointError: it has more ids than `rows`.
    """
    if tokenizer.vocab_size > rows:
        raise CheckpointError(f"the tokenizer has {tokenizer.vocab_size:,} ids, the model only {rows:,}")
    if isinstance(tokenizer, ByteBPE):
        found = _byte_bpe(tokenizer, rows)
    elif isinstance(tokenizer, SentencePiece):
        found = _sentencepiece(tokenizer, rows)
    else:
        raise UsageError(
            f"GGUF files hold byte-level BPE and SentencePiece BPE tokenizers; this is {tokenizer.algorithm}"
        )
    for part, name in PARTS.items():
        number = getattr(tokenizer, f"{part}_id")
        if number is not None:
            found[f"{KEY}{name}_token_id"] = number
    found[KEY + "add_bos_token"] = begins_texts(tokenizer)
    found[KEY + "add_eos_token"] = False
    if tokenizer.chat_template is not None:
        found[TEMPLATE] = tokenizer.chat_template
    if tokenizer.chat_templates:
        found["tokenizer.chat_templates"] = list(tokenizer.chat_templates)
        found |= {f"{TEMPLATE}.{name}": text for name, text in tokenizer.chat_templates.items()}
    return found


def _byte_bpe(tokenizer: ByteBPE, rows: int) -> dict[str, Any]:
    named = {(PATTERNS[pattern], whole): name for name, (pattern, whole) in RULES.items()}
    pre = named.get((tokenizer.pattern, tokenizer.ignore_merges))
    if pre is None:
        whole = " with `ignore_merges`" if tokenizer.ignore_merges else ""
        raise UsageError(f"llama.cpp does not know how this tokenizer cuts text{whole}: {tokenizer.pattern}")
    _refuse_flags(tokenizer.added.tokens)
    tokens, types = _listed(tokenizer, rows)
    found = {
        KEY + "model": "gpt2",
        KEY + "pre": pre,
        KEY + "tokens": tokens,
        KEY + "token_type": types,
        KEY + "merges": [f"{left} {right}" for left, right in tokenizer.merges],
        NORMAL_FORM: tokenizer.normal_form or "none",
    }
    if not tokenizer.merges:
        raise UsageError("a byte-level vocabulary without merges is none that llama.cpp reads")
    return found


def _sentencepiece(tokenizer: SentencePiece, rows: int) -> dict[str, Any]:
    spec, trainer, back = tokenizer.file.normalizer, tokenizer.file.trainer, tokenizer.file.denormalizer
    faults = {
        f"a {ModelType(trainer.model_type).name.lower()} model": trainer.model_type != ModelType.BPE,
        "no byte fallback": not trainer.byte_fallback,
        "a map of characters in its normalizer": bool(spec.precompiled_charsmap),
        "extra white space removed": spec.remove_extra_whitespaces,
        "spaces that stay spaces": not spec.escape_whitespaces,
        "spaces at the ends of words": trainer.treat_whitespace_as_suffix,
        "text changed after decoding": bool(back is not None and back.precompiled_charsmap),
    }
    if wrong := [what for what, is_so in faults.items() if is_so]:
        raise UsageError(f"llama.cpp reads SentencePiece's plain BPE alone; this one has {', '.join(wrong)}")
    pieces = {piece.piece for piece in tokenizer.file.pieces}
    plain = [t.content for t in tokenizer.added.tokens if not t.special and t.content not in pieces]
    if plain:
        raise UsageError(f"added tokens that are not special have no place beside a SentencePiece model: {plain[:5]}")
    tokens, types = _listed(tokenizer, rows)
    scores = np.full(rows, UNSET_SCORE, "<f4")
    scores[: len(tokenizer.file.pieces)] = [piece.score for piece in tokenizer.file.pieces]
    return {
        KEY + "model": "llama",
        KEY + "pre": "default",
        KEY + "tokens": tokens,
        KEY + "scores": scores,
        KEY + "token_type": types,
        KEY + "add_space_prefix": spec.add_dummy_prefix,
        KEY + "remove_extra_whitespaces": False,
    }


def _refuse_flags(added: Iterable[AddedToken]) -> None:
    """Ordinary added tokens that take white space with them, or stand alone: llama.cpp finds them anywhere."""
    odd = [t.content for t in added if not t.special and (t.lstrip or t.rstrip or t.single_word)]
    if odd:
        raise UsageError(f"llama.cpp finds added tokens wherever they stand, and has no lstrip for {odd[:5]}")


def _listed(tokenizer: Tokenizer, rows: int) -> tuple[list[str], np.ndarray]:
    """Spelling and type of every id."""
    tokens, types = [f"[PAD{number}]" for number in range(rows)], np.full(rows, PieceType.UNUSED, "<i4")
    for token, number in tokenizer.vocab.items():
        tokens[number], types[number] = token, PieceType.NORMAL
    if isinstance(tokenizer, SentencePiece):
        types[: len(tokenizer.file.pieces)] = [piece.type for piece in tokenizer.file.pieces]
    for token in tokenizer.added.tokens:
        types[token.id] = PieceType.CONTROL if token.special else PieceType.USER_DEFINED
    return tokens, types


def begins_texts(tokenizer: Tokenizer) -> bool:
    """Whether texts begin with BOS: as tokenizer.json says; SentencePiece's own files mean it of a BPE model."""
    if tokenizer.bos_id is None:
        return False
    if tokenizer.post_processor is None:
        return isinstance(tokenizer, SentencePiece)
    return list(tokenizer.encode_with_special("").ids[:1]) == [tokenizer.bos_id]


# -- reading ----------------------------------------------------------------------------------------------------------


def from_metadata(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """The tokenizer that the keys describe; `where` begins the error messages."""
    kind = metadata.get(KEY + "model")
    if kind not in ("gpt2", "llama"):
        what = "holds no tokenizer" if kind in (None, "no_vocab") else f"holds a {kind!r:.40} tokenizer"
        raise CheckpointError(f"{where} {what}; known are gpt2 (byte-level BPE) and llama (SentencePiece BPE)")
    tokens = _texts(metadata, KEY + "tokens", where)
    types = _numbers(metadata, KEY + "token_type", where, len(tokens), "i")
    if bad := sorted(set(types.tolist()) - set(PieceType)):
        raise CheckpointError(f"{where}: {KEY}token_type holds {bad[0]}, which is no type of token")
    count = _without_padding(tokens, types)
    special = SpecialNames(**{part: _named(metadata, name, tokens, where) for part, name in PARTS.items()})
    make = _read_byte_bpe if kind == "gpt2" else _read_sentencepiece
    found = make(metadata, tokens[:count], types[:count], special, where)
    if metadata.get(KEY + "add_bos_token", kind == "llama") is True and special.bos is not None:
        found.post_processor = _bos_first(special.bos, found.vocab[special.bos])
    template = metadata.get(TEMPLATE)
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"{where}: {TEMPLATE} must be text")
    found.chat_template = template
    for name in metadata.get("tokenizer.chat_templates", ()):
        text = metadata.get(f"{TEMPLATE}.{name}")
        if isinstance(text, str):
            found.chat_templates[name] = text
    return found


def _without_padding(tokens: list[str], types: np.ndarray) -> int:
    """How many tokens there are before the ids that only fill the embedding up."""
    count = len(tokens)
    while count and types[count - 1] == PieceType.UNUSED and tokens[count - 1] == f"[PAD{count - 1}]":
        count -= 1
    return count


def _read_byte_bpe(
    metadata: Mapping[str, Any], tokens: list[str], types: np.ndarray, names: SpecialNames, where: str
) -> ByteBPE:
    pre = metadata.get(KEY + "pre")
    rule = RULES.get(ALIASES.get(str(pre), str(pre)))
    if rule is None:
        known = ", ".join([*RULES, *ALIASES])
        raise CheckpointError(f"{where}: {KEY}pre is {pre!r:.40}: how it cuts text is not known here, but for {known}")
    form = metadata.get(NORMAL_FORM, "NFC" if rule[0] == "qwen2" else "none")
    if form not in ("none", "NFC", "NFD", "NFKC", "NFKD"):
        raise CheckpointError(f"{where}: {NORMAL_FORM} is {form!r:.40}, which is no normal form")
    vocab, added = {}, []
    for number, (token, kind) in enumerate(zip(tokens, types.tolist(), strict=True)):
        if kind == PieceType.UNUSED and token == f"[PAD{number}]":
            continue
        if token in vocab:
            raise CheckpointError(f"{where}: the token {token!r:.60} appears twice, as {vocab[token]} and {number}")
        vocab[token] = number
        if kind in (PieceType.CONTROL, PieceType.UNKNOWN, PieceType.USER_DEFINED):
            added.append(AddedToken(token, number, special=kind != PieceType.USER_DEFINED))
    merges = [_pair(merge, where) for merge in _texts(metadata, KEY + "merges", where)]
    pattern, whole = rule
    try:
        return ByteBPE(
            vocab, merges, added,
            pattern=pattern, normal_form=None if form == "none" else form, ignore_merges=whole, names=names,
        )  # fmt: skip
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _pair(merge: str, where: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right) or " " in right:
        raise CheckpointError(f"{where}: {merge!r:.60} is no merge: two tokens with a space between are expected")
    return left, right


def _read_sentencepiece(
    metadata: Mapping[str, Any], tokens: list[str], types: np.ndarray, names: SpecialNames, where: str
) -> SentencePiece:
    scores = _numbers(metadata, KEY + "scores", where, None, "f")
    if len(scores) < len(tokens):
        raise CheckpointError(f"{where}: {KEY}scores has {len(scores)} numbers for {len(tokens)} tokens")
    rows = zip(tokens, scores.tolist(), types.tolist(), strict=False)
    pieces = [Piece(token, score, kind) for token, score, kind in rows]
    trainer = TrainerSpec(model_type=ModelType.BPE, vocab_size=len(tokens))
    trainer.byte_fallback = any(piece.type == PieceType.BYTE for piece in pieces)
    for part in PARTS:
        token = getattr(names, part)
        setattr(trainer, f"{part}_id", tokens.index(token) if token in tokens else -1)
        if token is not None:
            setattr(trainer, f"{part}_piece", token)
    space = metadata.get(KEY + "add_space_prefix", True)
    normalizer = NormalizerSpec("identity", add_dummy_prefix=bool(space), remove_extra_whitespaces=False)
    file = ModelFile(pieces, trainer, normalizer)
    file.check(where)
    return SentencePiece(file, names=names)


def _bos_first(token: str, number: int) -> dict[str, Any]:
    """What tokenizer.json says of a BOS in front of every text."""
    begin, first, second = (
        {"SpecialToken": {"id": token, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    )
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def _texts(metadata: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(item, str) for item in found):
        raise CheckpointError(f"{where}: {key} must be a list of texts")
    return found


def _numbers(metadata: Mapping[str, Any], key: str, where: str, count: int | None, kind: str) -> np.ndarray:
    found = metadata.get(key)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in (kind, "u" if kind == "i" else kind):
        raise CheckpointError(f"{where}: {key} must be a list of numbers")
    if count is not None and len(found) != count:
        raise CheckpointError(f"{where}: {key} has {len(found)} entries, not {count} as there are tokens")
    return found


def _named(metadata: Mapping[str, Any], name: str, tokens: list[str], where: str) -> str | None:
    number = metadata.get(f"{KEY}{name}_token_id")
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(tokens):
        raise CheckpointError(f"{where}: {KEY}{name}_token_id is {number!r:.40}, which is no token")
    return tokens[number]
