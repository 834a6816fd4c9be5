"""Reading tokenizer.json: every part is recognised, or refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import read_json
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.bpe import BPEModel, Merge
from groundup.tokenizers.byte_bpe import ByteBPE
from groundup.tokenizers.byte_symbols import BYTE_TO_SYMBOL, SYMBOL_TO_BYTE
from groundup.tokenizers.characters import Characters
from groundup.tokenizers.files import ANY_CHARACTER, WHOLE_TEXT, words_splits
from groundup.tokenizers.pipeline.cutting import Cut
from groundup.tokenizers.pipeline.decoders import read_decoder
from groundup.tokenizers.pipeline.normal_forms import FORMS
from groundup.tokenizers.pipeline.normalizers import read_normalizer
from groundup.tokenizers.pipeline.oniguruma import translate
from groundup.tokenizers.pipeline.parts import MAX_ID, Json, Part
from groundup.tokenizers.pipeline.pipeline import Model, Pipeline
from groundup.tokenizers.pipeline.post_processors import read_post_processor
from groundup.tokenizers.pipeline.pre_tokenizers import read_pre_tokenizer
from groundup.tokenizers.pretokenize import PATTERNS
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer
from groundup.tokenizers.trie import Trie
from groundup.tokenizers.unigram import UnigramModel
from groundup.tokenizers.wordpiece import WordPieceModel
from groundup.tokenizers.words import WordLevelModel, Words

__all__ = ["Part", "read_model", "read_pipeline", "read_tokenizer_json"]

# Symbols of the bytes that occur in UTF-8; some vocabularies (GPT-NeoX) leave out the others.
_UTF8_SYMBOLS = [BYTE_TO_SYMBOL[byte] for byte in (*range(0xC0), *range(0xC2, 0xF5))]


def read_tokenizer_json(
    path: str | Path, names: SpecialNames | None = None, chat_template: str | None = None
) -> Tokenizer:
    """The tokenizer in a tokenizer.json: of a plainer kind where one can do it, else a `Pipeline`.

    Raises:
        CheckpointError: damaged, inconsistent, or with a part that is not understood here; the message names it.
    """
    root = Part(read_json(path), str(path))
    try:
        for read in (_read_byte_bpe, _read_characters, _read_words, _read_trie):
            if plain := read(root, names, chat_template):
                return plain
        return read_pipeline(root, names, chat_template)
    except (CheckpointError, UsageError) as error:
        raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None


def read_pipeline(root: Part, names: SpecialNames | None = None, chat_template: str | None = None) -> Pipeline:
    """The tokenizer that the content of a tokenizer.json describes, whatever its kind.

    Raises:
        CheckpointError: damaged, inconsistent, or with a part that is not understood here; the message names it.
    """
    model, rest = _model(root), _rest(root, names, chat_template)
    parts = {"normalizer": read_normalizer, "pre_tokenizer": read_pre_tokenizer, "decoder": read_decoder}
    made = {key: read(part) for key, read in parts.items() if (part := root.part(key)) is not None}
    return Pipeline(read_model(model), _added_tokens(root), **made, **rest)


def _model(root: Part) -> Part:
    model = root.part("model")
    if model is None:
        raise CheckpointError(f"{root.where} has no `model`: it is not a tokenizer.json")
    # What cuts or fills up texts (truncation, padding) is left to the caller: a text is encoded whole.
    root.only(
        version=Any, truncation=Any, padding=Any, added_tokens=Any, normalizer=Any, pre_tokenizer=Any,
        post_processor=Any, decoder=Any, model=Any,
    )  # fmt: skip
    return model


def _rest(root: Part, names: SpecialNames | None, chat_template: str | None) -> Json:
    """What all kinds have: the parts that tokens play, the chat template, the post-processor."""
    part = root.part("post_processor")
    bos, eos = read_post_processor(part).around() if part else (None, None)
    end = next((token.content for token in _added_tokens(root) if token.content == "<|endoftext|>"), None)
    return {
        "names": names or SpecialNames(bos=bos, eos=eos or end),
        "chat_template": chat_template,
        "post_processor": part.value if part else None,
    }


def _added_tokens(root: Part) -> list[AddedToken]:
    found = []
    flags = ("lstrip", "rstrip", "single_word")
    for part in root.parts("added_tokens") if root.value.get("added_tokens") else []:
        part.only(id=Any, content=Any, special=Any, normalized=Any, single_word=Any, lstrip=Any, rstrip=Any)
        content, number = part.get("content", str, ""), part.get("id", int, -1)
        if not content:
            raise CheckpointError(f"{part.where}: the token has no content")
        special = part.get("special", bool, False)
        given = {flag: part.get(flag, bool, False) for flag in flags}
        found.append(AddedToken(content, number, special, part.get("normalized", bool, not special), **given))
    if len({token.content for token in found}) != len(found):
        raise CheckpointError(f"{root.where}.added_tokens: a token is listed twice")
    return found


def read_model(part: Part) -> Model:
    """The model that `part` describes.

    Raises:
        CheckpointError: a kind that is not known, or a damaged vocabulary.
    """
    kind = _kind(part)
    if not isinstance(kind, str) or kind not in MODELS:
        raise CheckpointError(f"{part.where}: the model {kind!r:.80} is not supported; {', '.join(MODELS)} are")
    return MODELS[kind](part)


def _kind(part: Part) -> Any:
    """The model's type. Files from before there was one are told by their settings."""
    if part.type is not None:
        return part.type
    marks = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece", "unk_token": "WordLevel"}
    return next((kind for mark, kind in marks.items() if mark in part.value), None)


def _vocab(model: Part) -> dict[str, int]:
    vocab = model.required("vocab", dict)
    if wrong := next((t for t, n in vocab.items() if type(n) is not int or not 0 <= n < MAX_ID), None):
        raise CheckpointError(
            f"{model.where}.vocab: token {wrong!r:.80} has the id {vocab[wrong]!r:.80}: "
            f"a whole number below {MAX_ID} is expected"
        )
    return vocab


def _merges(model: Part) -> list[Merge]:
    """Both spellings: "a b" and ["a", "b"]."""
    merges = []
    for place, value in enumerate(model.required("merges", list)):
        if isinstance(value, str) and value.startswith("#version"):
            continue
        pair = value.split(" ") if isinstance(value, str) else value
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise CheckpointError(f"{model.where}.merges[{place}]: two symbols are expected, found {value!r:.80}")
        merges.append((pair[0], pair[1]))
    return merges


def _check_bpe(part: Part) -> None:
    part.only(
        vocab=Any, merges=Any, ignore_merges=Any, fuse_unk=Any, unk_token=Any, byte_fallback=Any,
        continuing_subword_prefix=Any, end_of_word_suffix=Any, dropout=(None, 0.0),
    )  # fmt: skip


def _bpe(part: Part) -> BPEModel:
    _check_bpe(part)
    return BPEModel(
        _vocab(part),
        _merges(part),
        unk=part.get("unk_token", str),
        fuse_unk=part.get("fuse_unk", bool, False),
        byte_fallback=part.get("byte_fallback", bool, False),
        prefix=part.get("continuing_subword_prefix", str, ""),
        suffix=part.get("end_of_word_suffix", str, ""),
        ignore_merges=part.get("ignore_merges", bool, False),
    )


def _word_piece(part: Part) -> WordPieceModel:
    part.only(vocab=Any, unk_token=Any, continuing_subword_prefix=Any, max_input_chars_per_word=Any)
    return WordPieceModel(
        _vocab(part),
        unk=part.get("unk_token", str, "[UNK]"),
        prefix=part.get("continuing_subword_prefix", str, "##"),
        max_word=part.get("max_input_chars_per_word", int, 100),
    )


def _word_level(part: Part) -> WordLevelModel:
    part.only(vocab=Any, unk_token=Any)
    return WordLevelModel(_vocab(part), unk=part.get("unk_token", str, "<unk>"))


def _unigram(part: Part) -> UnigramModel:
    part.only(vocab=Any, unk_id=Any, byte_fallback=Any)
    pieces = []
    for place, value in enumerate(part.required("vocab", list)):
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str) or not _is_score(value[1]):
            raise CheckpointError(
                f"{part.where}.vocab[{place}]: a piece and its log-probability are expected, found {value!r:.80}"
            )
        pieces.append((value[0], float(value[1])))
    return UnigramModel(pieces, part.get("unk_id", int), byte_fallback=part.get("byte_fallback", bool, False))


def _is_score(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


MODELS = {"BPE": _bpe, "WordPiece": _word_piece, "WordLevel": _word_level, "Unigram": _unigram}


def _read_characters(root: Part, names: SpecialNames | None, chat_template: str | None) -> Characters | None:
    """Words of one character, if the file describes just that."""
    model, split, decoder = _model(root), root.part("pre_tokenizer"), root.part("decoder")
    if _kind(model) != "WordLevel" or root.part("normalizer") or split is None or decoder is None:
        return None
    if decoder.type != "Fuse" or split.type != "Split" or split.value.get("behavior") != "Isolated":
        return None
    if split.value.get("pattern") not in ({"Regex": ANY_CHARACTER}, {"String": ""}, {"Regex": ""}):
        return None
    word_level, added, rest = _word_level(model), _added_tokens(root), _rest(root, names, chat_template)
    special = {token.content for token in added}
    if any(len(token) != 1 and token not in special for token in word_level.vocab):
        return None
    if word_level.unk in word_level.vocab and rest["names"].unk is None:
        rest |= {"names": replace(rest["names"], unk=word_level.unk)}
    return Characters(word_level.vocab, added, **rest)


def _read_words(root: Part, names: SpecialNames | None, chat_template: str | None) -> Words | None:
    """Words and signs, if the file describes just what `Words` writes."""
    model, split = _model(root), root.part("pre_tokenizer")
    if _kind(model) != "WordLevel" or root.part("normalizer") or root.part("decoder") or split is None:
        return None
    inner = split.parts("pretokenizers") if split.type == "Sequence" else []
    signs = inner[1].value.get("pattern") if len(inner) == 2 else None
    if not isinstance(signs, dict) or [item.value for item in inner] != words_splits(str(signs.get("Regex"))):
        return None
    word_level, rest = _word_level(model), _rest(root, names, chat_template)
    if word_level.unk in word_level.vocab and rest["names"].unk is None:
        rest |= {"names": replace(rest["names"], unk=word_level.unk)}
    return Words(word_level.vocab, _added_tokens(root), signs=signs["Regex"], **rest)


def _read_trie(root: Part, names: SpecialNames | None, chat_template: str | None) -> Trie | None:
    """Greedy longest match over bytes, if the file describes just what `Trie` writes."""
    model, level, decoder = _model(root), root.part("pre_tokenizer"), root.part("decoder")
    if _kind(model) != "WordPiece" or root.part("normalizer") or level is None or decoder is None:
        return None
    whole = level.type == "ByteLevel" and level.value.get("use_regex") is False
    if not whole or level.value.get("add_prefix_space") is not False or decoder.type != "ByteLevel":
        return None
    piece = _word_piece(model)
    if piece.prefix or piece.max_word < WHOLE_TEXT or not all(symbol in piece.vocab for symbol in SYMBOL_TO_BYTE):
        return None
    return Trie(piece.vocab, _added_tokens(root), **_rest(root, names, chat_template))


def _read_byte_bpe(root: Part, names: SpecialNames | None, chat_template: str | None) -> ByteBPE | None:
    """Byte-level BPE, if the file describes just that: one pattern, all bytes, at most a Unicode normal form."""
    model, decoder = _model(root), root.part("decoder")
    pattern, form = _byte_level_pattern(root.part("pre_tokenizer")), _normal_form(root.part("normalizer"))
    if _kind(model) != "BPE" or decoder is None or decoder.type != "ByteLevel" or pattern is None or form is None:
        return None
    settings = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if any(model.value.get(setting) for setting in settings):
        return None
    _check_bpe(model)
    read_decoder(decoder)
    vocab = _vocab(model)
    if not all(symbol in vocab for symbol in _UTF8_SYMBOLS):
        return None
    return ByteBPE(
        vocab,
        _merges(model),
        _added_tokens(root),
        pattern=pattern,
        normal_form=form or None,
        ignore_merges=model.get("ignore_merges", bool, False),
        **_rest(root, names, chat_template),
    )


def _normal_form(part: Part | None) -> str | None:
    """The one Unicode normal form that is applied, "" for none; None: more is done than that."""
    if part is not None and part.type == "Sequence":
        inner = part.parts("normalizers")
        return "" if not inner else _normal_form(inner[0]) if len(inner) == 1 else None
    if part is None:
        return ""
    return part.type if part.type in FORMS else None


def _byte_level_pattern(part: Part | None) -> str | None:
    """The pattern that ByteLevel, or a Split and ByteLevel, cut by; None: it is cut in another way."""
    if part is None:
        return None
    inner = part.parts("pretokenizers") if part.type == "Sequence" else [part]
    steps = read_pre_tokenizer(part).steps()
    if not inner or inner[-1].type != "ByteLevel" or len(steps) != 2 or not isinstance(steps[0], Cut):
        return None
    cut = steps[0]
    if cut.behavior != "Isolated" or cut.invert or len(inner) > 2:
        return None
    if len(inner) == 1:
        return PATTERNS["gpt2"]
    pattern = inner[0].part("pattern") if inner[0].type == "Split" else None
    found = pattern.get("Regex", str) if pattern else None
    # The expression must mean the same in both dialects.
    return found if found and translate(found) == found else None
