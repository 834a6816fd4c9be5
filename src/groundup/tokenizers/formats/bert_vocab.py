"""BERT's vocab.txt: a token a line, its id is the line's number from 0.

The file says nothing of case or accents; tokenizer_config.json beside it does (`do_lower_case`, `strip_accents`,
`tokenize_chinese_chars`). Without one the vocabulary tells: where some token has an upper-case letter, case counts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError
from groundup.base.files import write_atomic
from groundup.tokenizers.bert import SPECIAL, UNKNOWN, bert_tokenizer
from groundup.tokenizers.formats.bounded import head, read_bounded_text
from groundup.tokenizers.pipeline.normalizers import BertNormalizer
from groundup.tokenizers.pipeline.pipeline import Pipeline
from groundup.tokenizers.pipeline.pre_tokenizers import BertPreTokenizer
from groundup.tokenizers.tokenizer import MAX_ID, SpecialNames, Tokenizer
from groundup.tokenizers.wordpiece import WordPieceModel

CONFIG = "tokenizer_config.json"


def sniff(path: str | Path) -> bool:
    """Whether the file begins with lines of one token, a control token of BERT's among them."""
    lines = head(path).decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")
    return any(token in lines for token in (*SPECIAL, "[unused0]")) and not any(" " in line for line in lines)


def read(path: str | Path, *, config: Mapping[str, Any] | None = None, chat_template: str | None = None) -> Pipeline:
    """The tokenizer of a vocab.txt.

    Args:
        path: the file.
        config: what tokenizer_config.json says.
        chat_template: kept with the tokenizer.

    Raises:
        CheckpointError: an empty or repeated line, no [UNK], or a setting of another type; the message names it.
    """
    vocab = read_vocab(path)
    config = config or {}
    unknown = _text(config, "unk_token", path) or UNKNOWN
    if unknown not in vocab:
        raise CheckpointError(f"{path} has no {unknown}: it is not a vocabulary of BERT's kind")
    cased = any(c.isupper() for token in vocab if not token.startswith("[") for c in token)
    names = {part: _text(config, f"{part}_token", path) for part in ("bos", "eos", "pad")}
    own = [_text(config, f"{part}_token", path) for part in ("cls", "sep", "mask", "pad", "unk")]
    return bert_tokenizer(
        vocab,
        lowercase=_flag(config, "do_lower_case", path, not cased) is True,
        strip_accents=_flag(config, "strip_accents", path, None),
        chinese_apart=_flag(config, "tokenize_chinese_chars", path, True) is not False,
        special_tokens=list(dict.fromkeys([*SPECIAL, *(token for token in own if token)])),
        names=SpecialNames(**{"pad": "[PAD]" if "[PAD]" in vocab else None} | _known(names, vocab), unk=unknown),
        chat_template=chat_template,
    )


def _known(names: Mapping[str, str | None], vocab: Mapping[str, int]) -> dict[str, str | None]:
    return {part: token for part, token in names.items() if token in vocab}


def _text(config: Mapping[str, Any], key: str, path: str | Path) -> str | None:
    found = config.get(key)
    found = found.get("content") if isinstance(found, Mapping) else found
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{CONFIG} beside {path}: {key} must be text, found {found!r:.80}")
    return found


def _flag(config: Mapping[str, Any], key: str, path: str | Path, default: bool | None) -> bool | None:
    found = config.get(key, default)
    if found is not None and not isinstance(found, bool):
        raise CheckpointError(f"{CONFIG} beside {path}: {key} must be true, false or null, found {found!r:.80}")
    return found


def read_vocab(path: str | Path) -> dict[str, int]:
    """Token -> id.

    Raises:
        CheckpointError: an empty or repeated line, or too many; the message names it.
    """
    lines = read_bounded_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) > MAX_ID:
        raise CheckpointError(f"{path} has {len(lines):,} lines, more than any vocabulary")
    vocab: dict[str, int] = {}
    for number, token in enumerate(lines):
        if not token or vocab.setdefault(token, number) != number:
            what = f"{token!r:.80} stands in line {vocab[token] + 1} already" if token else "the line is empty"
            raise CheckpointError(f"{path}, line {number + 1}: {what}")
    return vocab


def write(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write vocab.txt, and tokenizer_config.json beside it with what the vocabulary cannot say.

    Raises:
        CheckpointError: a tokenizer of other parts than BERT's, or ids that are not 0, 1, 2, ...
    """
    normalizer = _bert_parts(tokenizer)
    tokens = sorted(tokenizer.vocab.items(), key=lambda item: item[1])
    if [number for _, number in tokens] != list(range(len(tokens))):
        raise CheckpointError("vocab.txt cannot leave out ids: each line is the next one; write tokenizer.json instead")
    if odd := next((token for token, _ in tokens if not token or set(token) & {"\n", "\r"}), None):
        raise CheckpointError(f"vocab.txt cannot hold the token {odd!r}: a line is a token")
    named = {f"{part}_token": getattr(tokenizer.names, part) for part in ("bos", "eos", "pad", "unk")}
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.lowercase,
        "strip_accents": normalizer.strip_accents,
        "tokenize_chinese_chars": normalizer.handle_chinese_chars,
        **{key: token for key, token in named.items() if token is not None},
    }
    write_atomic(path, "".join(f"{token}\n" for token, _ in tokens))
    write_atomic(Path(path).parent / CONFIG, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def _bert_parts(tokenizer: Tokenizer) -> BertNormalizer:
    """The normalizer, if all parts are as BERT's."""
    if isinstance(tokenizer, Pipeline) and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer):
        model, normalizer = tokenizer.model, tokenizer.normalizer
        usual = isinstance(model, WordPieceModel) and (model.prefix, model.max_word) == ("##", 100)
        if usual and isinstance(normalizer, BertNormalizer) and normalizer.clean_text:
            return normalizer
    raise CheckpointError(
        "vocab.txt is for BERT's normalizer, pre-tokenizer and WordPiece; write tokenizer.json instead"
    )
