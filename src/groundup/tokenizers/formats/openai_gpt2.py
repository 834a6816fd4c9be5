"""OpenAI's pair of files (encoder.json and vocab.bpe), and the same content under Hugging Face's older names.

encoder.json holds token -> id, vocab.bpe a merge a line in the order in which they were learnt; tokens are spelled in
byte symbols. The pattern is not in the files: it is GPT-2's unless the caller says otherwise.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from groundup.base.errors import CheckpointError
from groundup.base.files import read_json, write_atomic
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE, Merge
from groundup.tokenizers.formats.bounded import read_bounded_text
from groundup.tokenizers.tokenizer import SpecialNames

# The vocabulary's name, and that of the merges beside it.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
END_OF_TEXT = "<|endoftext|>"
VERSION = "#version: 0.2"


def sniff(path: str | Path) -> bool:
    """Whether the file is a vocabulary with its merges beside it, or the merges of one."""
    return find_pair(Path(path)) is not None


def find_pair(path: Path) -> tuple[Path, Path] | None:
    """The vocabulary and the merges, from the folder or from either file; prefixes (gpt2-encoder.json) are kept."""
    if path.is_dir():
        found = [(path / vocab, path / merges) for vocab, merges in PAIRS]
    else:
        found = [
            (
                path.with_name(path.name.removesuffix(given) + vocab),
                path.with_name(path.name.removesuffix(given) + merges),
            )
            for vocab, merges in PAIRS
            for given in (vocab, merges)
            if path.name.endswith(given)
        ]
    return next(((vocab, merges) for vocab, merges in found if vocab.is_file() and merges.is_file()), None)


def read(
    path: str | Path,
    pattern: str = "gpt2",
    *,
    merges: str | Path | None = None,
    normal_form: str | None = None,
    added: Mapping[str, int] | None = None,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> ByteBPE:
    """Byte-level BPE from a JSON vocabulary and a text file of merges.

    Args:
        path: the vocabulary, or the folder with both files.
        pattern: how text is cut before merging.
        merges: the file of merges; the one beside the vocabulary if not given.
        normal_form: Unicode normal form applied before all else.
        added: control tokens besides those with a part to play: spelling -> id.
        names: which special tokens are BOS, EOS, ...; if not given, `<|endoftext|>`, where the vocabulary has it, is
            both, as in GPT-2.
        chat_template: kept with the tokenizer.

    Raises:
        CheckpointError: a file is missing or damaged; the message names it.
    """
    ids, pairs = read_pair(path, merges)
    if names is None:
        end = END_OF_TEXT if END_OF_TEXT in ids else None
        names = SpecialNames(bos=end, eos=end)
    try:
        return ByteBPE(
            ids, pairs, _special({**ids, **(added or {})}, names, added or {}), pattern=pattern,
            normal_form=normal_form, names=names, chat_template=chat_template,
        )  # fmt: skip
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_pair(path: str | Path, merges: str | Path | None = None) -> tuple[dict[str, int], list[Merge]]:
    """What both files hold; where `merges` is not given, it lies beside the vocabulary.

    Raises:
        CheckpointError: a file is missing or damaged; the message names it.
    """
    path = Path(path)
    if merges is None:
        pair = find_pair(path)
        if pair is None:
            raise CheckpointError(f"{path}: " + " or ".join(f"{a} and {b}" for a, b in PAIRS) + " are expected")
        path, merges = pair
    ids = read_json(path)
    if not isinstance(ids, dict):
        raise CheckpointError(f"{path} must hold an object from token to id, found {type(ids).__name__}")
    return ids, read_merges(merges)


def _special(ids: Mapping[str, int], names: SpecialNames, added: Mapping[str, int]) -> list[AddedToken]:
    tokens = dict.fromkeys((names.bos, names.eos, names.pad, names.unk, *added))
    return [AddedToken(token, ids[token]) for token in tokens if token is not None and token in ids]


def read_merges(path: str | Path) -> list[Merge]:
    """The pairs in a file of merges, one a line, separated by a space; a first line `#version` is skipped.

    Raises:
        CheckpointError: a line that is no pair; the message names it.
    """
    merges: list[Merge] = []
    for number, line in enumerate(read_bounded_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, separator, right = line.partition(" ")
        if not (left and separator and right) or " " in right:
            raise CheckpointError(
                f"{path}, line {number}: two symbols with a space between are expected, got {line!r:.80}"
            )
        merges.append((left, right))
    return merges


def write(tokenizer: ByteBPE, path: str | Path, pair: tuple[str, str] = ("encoder.json", "vocab.bpe")) -> None:
    """Write both files into the folder `path`, spelled as OpenAI's are; GPT-2's own come out byte for byte.

    The pattern has no place in these files, nor what special tokens mean.

    Raises:
        CheckpointError: what the files cannot express: a normal form, tokens that no merge makes, or a first merge that
            would be taken for a comment.
    """
    merges = _merges(tokenizer)
    if tokenizer.normal_form is not None:
        raise CheckpointError(
            f"{pair[0]} and {pair[1]} cannot express the normal form {tokenizer.normal_form}: write tokenizer.json"
        )
    lines = [VERSION, *(f"{left} {right}" for left, right in merges), ""]
    write_atomic(Path(path) / pair[1], "\n".join(lines))
    # Last, so that a vocabulary is never without its merges.
    ids = dict(sorted(tokenizer.vocab.items(), key=lambda item: item[1]))
    write_atomic(Path(path) / pair[0], json.dumps(ids))


def _merges(tokenizer: ByteBPE) -> list[Merge]:
    """The merges; for vocabularies of ranks, those that their ranks mean."""
    if not tokenizer.ignore_merges:
        return tokenizer.merges
    from groundup.tokenizers.formats.tiktoken_ranks import derive_merges, ranks_of

    derived = derive_merges(ranks_of(tokenizer))
    if derived is None:
        raise CheckpointError(
            "some tokens are found only as whole pieces, which a file of merges cannot express: write tokenizer.json"
        )
    return derived
