"""From a path or a name to a tokenizer, whichever of the known files lie there."""

from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import read_json
from groundup.base.folders import find_folder
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE, Merge
from groundup.tokenizers.chat_files import FILES as TEMPLATE_FILES
from groundup.tokenizers.chat_files import read_templates, with_templates
from groundup.tokenizers.files import CONFIG, TOKENIZER
from groundup.tokenizers.reading import read_tokenizer_json
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

# What is downloaded for a hub name.
FILES = (
    TOKENIZER, CONFIG, *TEMPLATE_FILES, "special_tokens_map.json", "vocab.json", "merges.txt", "encoder.json",
)  # fmt: skip
# OpenAI's pair of files, and Hugging Face's older names for the same content.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
MAX_TEXT_BYTES = 64 * 1024**2
END_OF_TEXT = "<|endoftext|>"


def load_tokenizer(path_or_name: str | Path, pattern: str | None = None) -> Tokenizer:
    """The tokenizer in a folder, in a tokenizer.json, or of a hub name.

    Args:
        path_or_name: a folder with tokenizer.json, vocab.json + merges.txt, or encoder.json + vocab.bpe; a
            tokenizer.json itself; a built-in model's name; or a hub name ("org/name") that is no local path.
        pattern: how text is cut before merging (`pretokenize.PATTERNS`, or a regular expression), for files that do
            not say it (vocabulary and merges); "gpt2" if not given.

    Raises:
        CheckpointError: no tokenizer there, damaged files, or a part that is not understood; the message names it.
        UsageError: a pattern is given for a file that has its own.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return with_templates(_from_json(path, pattern), path.parent)
    folder = find_folder(path_or_name, FILES)
    if (folder / TOKENIZER).is_file():
        return with_templates(_from_json(folder / TOKENIZER, pattern), folder)
    for vocab, merges in PAIRS:
        if (folder / vocab).is_file() and (folder / merges).is_file():
            found = load_vocab_and_merges(folder / vocab, folder / merges, pattern or "gpt2")
            return with_templates(found, folder)
    names = ", ".join(sorted(item.name for item in folder.iterdir())[:12]) or "nothing"
    raise CheckpointError(
        f"{folder} has no tokenizer: tokenizer.json, or vocab.json + merges.txt, is expected; found {names}"
    )


def _from_json(path: Path, pattern: str | None) -> Tokenizer:
    if pattern is not None:
        raise UsageError(f"{path} says itself how text is cut: leave `pattern` off")
    config = read_config(path.parent)
    return read_tokenizer_json(path, special_names(config), None)


def load_vocab_and_merges(vocab: str | Path, merges: str | Path, pattern: str = "gpt2") -> ByteBPE:
    """Byte-level BPE from a JSON vocabulary and a text file of merges (GPT-2's encoder.json + vocab.bpe).

    `<|endoftext|>`, where the vocabulary has it, is a special token and stands for BOS and EOS, as in GPT-2, unless
    tokenizer_config.json beside the vocabulary says otherwise.
    """
    vocab = Path(vocab)
    ids = read_json(vocab)
    if not isinstance(ids, dict):
        raise CheckpointError(f"{vocab} must hold an object from token to id, found {type(ids).__name__}")
    config = read_config(vocab.parent)
    names = special_names(config)
    if names is None:
        end = END_OF_TEXT if END_OF_TEXT in ids else None
        names = SpecialNames(bos=end, eos=end)
    special = [t for t in dict.fromkeys((names.bos, names.eos, names.pad, names.unk)) if t is not None and t in ids]
    added = [AddedToken(token, ids[token]) for token in special]
    template = read_templates(vocab.parent).get("default")
    try:
        return ByteBPE(ids, read_merges(merges), added, pattern=pattern, names=names, chat_template=template)
    except CheckpointError as error:
        raise CheckpointError(f"{vocab}: {error}") from None


def read_merges(path: str | Path) -> list[Merge]:
    """The pairs in a file of merges, one a line, separated by a space; a first line `#version` is skipped."""
    merges: list[Merge] = []
    for number, line in enumerate(_read_text(Path(path)).split("\n"), start=1):
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


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json with what an older special_tokens_map.json adds; empty where there is neither."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG):
        if (folder / name).is_file():
            value = read_json(folder / name)
            if not isinstance(value, dict):
                raise CheckpointError(f"{folder / name} must hold an object, found {type(value).__name__}")
            config |= value
    return config


def special_names(config: dict[str, Any]) -> SpecialNames | None:
    """Which token is BOS, EOS, ...; None where the config says nothing of them."""
    named = {part: _spelling(config.get(f"{part}_token")) for part in ("bos", "eos", "pad", "unk")}
    return SpecialNames(**named) if any(named.values()) else None


def _spelling(value: Any) -> str | None:
    found = value.get("content") if isinstance(value, dict) else value
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{CONFIG}: a special token must be text, found {found!r:.80}")
    return found


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"no file at {path}")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise CheckpointError(
            f"{path} is larger than {MAX_TEXT_BYTES:,} bytes, which is more than such a file can need"
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start} is not UTF-8") from None
