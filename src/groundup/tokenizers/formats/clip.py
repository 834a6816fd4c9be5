"""CLIP's vocab.json and merges.txt (Radford et al., 2021): bytes merged inside of words, whose last symbol has `</w>`.

The files look like GPT-2's; tokenizer_config.json beside them tells by `tokenizer_class`. How CLIP changes and cuts a
text stands in no file: NFC, white space as one space, lower case, then words, single digits and runs of signs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.bpe import BPEModel
from groundup.tokenizers.formats.openai_gpt2 import read_pair
from groundup.tokenizers.pipeline import decoders, normalizers, pre_tokenizers
from groundup.tokenizers.pipeline.cutting import Pattern
from groundup.tokenizers.pipeline.pipeline import Pipeline
from groundup.tokenizers.tokenizer import SpecialNames

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def read(
    path: str | Path,
    *,
    merges: str | Path | None = None,
    names: SpecialNames | None = None,
    added: Mapping[str, int] | None = None,
) -> Pipeline:
    """CLIP's tokenizer from a vocabulary and its merges.

    Args:
        path: the vocabulary, or the folder with both files.
        merges: the file of merges; the one beside the vocabulary if not given.
        names: which special tokens are BOS, EOS, ...; where they say nothing, `<|startoftext|>` begins a text, and
            `<|endoftext|>` is all else.
        added: further control tokens: spelling -> id.

    Raises:
        CheckpointError: a file is missing or damaged, or the special tokens are not in the vocabulary.
    """
    ids, pairs = read_pair(path, merges)
    given = names or SpecialNames()
    names = SpecialNames(given.bos or BEGIN, given.eos or END, given.pad or END, given.unk or END)
    extra = dict(added or {})
    known = {**ids, **extra}
    special = [token for token in (names.bos, names.eos, names.pad, names.unk) if token is not None]
    missing = next((token for token in special if token not in known), None)
    if missing is not None:
        raise CheckpointError(f"{path}: the special token {missing!r} of CLIP is not in the vocabulary")
    control = dict.fromkeys([*special, *extra])
    try:
        return Pipeline(
            BPEModel(ids, pairs, unk=names.unk, suffix=END_OF_WORD),
            [AddedToken(token, known[token]) for token in control],
            normalizer=_normalizer(),
            pre_tokenizer=_pre_tokenizer(),
            decoder=_decoder(),
            names=names,
            post_processor=_around(str(names.bos), str(names.eos), known),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _normalizer() -> normalizers.Sequence:
    one_space = normalizers.Replace(Pattern(r"\s+"), " ")
    return normalizers.Sequence((normalizers.NFC(), one_space, normalizers.Lowercase()))


def _pre_tokenizer() -> pre_tokenizers.Sequence:
    words = pre_tokenizers.Split(Pattern(PATTERN), "Removed", invert=True)
    return pre_tokenizers.Sequence((words, pre_tokenizers.ByteLevel(add_prefix_space=False)))


def _decoder() -> decoders.Sequence:
    """The end of a word becomes a space; white space at the ends of the text, as Python knows it, goes."""
    spaces = decoders.Replace(Pattern(END_OF_WORD, is_regex=False), " ")
    ends = decoders.Replace(Pattern(r"\A[\s\x1c-\x1f]+|[\s\x1c-\x1f]+\z"), "")
    return decoders.Sequence((decoders.ByteLevel(), spaces, ends))


def _around(begin: str, end: str, ids: Mapping[str, int]) -> dict[str, Any]:
    around = {"sep": [end, ids[end]], "cls": [begin, ids[begin]]}
    return {"type": "RobertaProcessing", **around, "trim_offsets": False, "add_prefix_space": False}
