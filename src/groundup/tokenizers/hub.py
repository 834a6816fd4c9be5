"""From a path or a name to a tokenizer, whichever of the known files lie there."""

import importlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import read_json
from groundup.base.folders import find_folder
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE
from groundup.tokenizers.chat.files import FILES as TEMPLATE_FILES
from groundup.tokenizers.chat.files import with_templates
from groundup.tokenizers.files import CONFIG, TOKENIZER
from groundup.tokenizers.formats.bounded import head
from groundup.tokenizers.formats.openai_gpt2 import PAIRS, read_merges
from groundup.tokenizers.pipeline.reading import read_tokenizer_json
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

__all__ = ["PAIRS", "TOKENIZER", "load_tokenizer", "load_vocab_and_merges", "read_merges"]

# What is downloaded for a hub name.
FILES = (
    TOKENIZER, CONFIG, *TEMPLATE_FILES, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "encoder.json", "vocab.bpe", "vocab.txt", "tokenizer.model", "*.tiktoken", "rwkv_vocab*.txt",
)  # fmt: skip
# A folder with more entries is no tokenizer's: only so many are looked at.
MOST_ENTRIES = 10_000
ADDED = "added_tokens.json"


@dataclass(frozen=True)
class Format:
    """A kind of file: where it may be found, and how it is read.

    Attributes:
        what: for people.
        names: file names and patterns, the usual one first.
        read: (file, pattern or None, what lies beside it) -> tokenizer.
        module: of `formats`, whose `sniff` says whether a file is of this kind.
    """

    what: str
    names: tuple[str, ...]
    read: Callable[[Path, str | None, "Beside"], Tokenizer]
    module: str | None = None

    def sniff(self, path: Path) -> bool:
        """Whether the file looks like one of this kind; reads its beginning at most."""
        if self.module is None:
            return head(path, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        return _module(self.module).sniff(path)


class Beside:
    """What tokenizer_config.json and its like, in the same folder, say."""

    def __init__(self, folder: Path):
        self.config = read_config(folder)
        self.names = special_names(self.config)
        self.added = _added(folder, self.config)

    def tokens(self) -> list[AddedToken]:
        """The added tokens with what the config says of them; a name with a part to play is special."""
        parts = [self.config.get(f"{part}_token") for part in ("bos", "eos", "pad", "unk", "cls", "sep", "mask")]
        more = self.config.get("additional_special_tokens")
        special = {_spelling(item) for item in (*parts, *(more if isinstance(more, list) else ()))}
        entries = self.config.get("added_tokens_decoder", {})
        found = []
        for content, number in self.added.items():
            entry = entries.get(str(number))
            told = entry if isinstance(entry, dict) else {"special": content in special}
            flags = {
                flag: told.get(flag) is True for flag in ("special", "normalized", "lstrip", "rstrip", "single_word")
            }
            found.append(AddedToken(content, number, **flags))
        return found


def load_tokenizer(path_or_name: str | Path, pattern: str | None = None) -> Tokenizer:
    """The tokenizer in a folder, in a file, or of a hub name.

    Args:
        path_or_name: a folder or a file of one of the kinds in `FORMATS` (tokenizer.json, SentencePiece's .model,
            tiktoken's ranks, vocab.json + merges.txt, encoder.json + vocab.bpe, BERT's vocab.txt, RWKV's vocabulary);
            a built-in model's name; or a hub name ("org/name") that is no local path.
        pattern: how text is cut before merging (`pretokenize.PATTERNS`, or a regular expression), for files that do
            not say it: ranks that are not a published vocabulary need it; for vocabulary and merges it is GPT-2's
            unless given.

    Raises:
        CheckpointError: no tokenizer there, damaged files, or a part that is not understood; the message names it.
        UsageError: a pattern is given for a file that has its own, or is needed and not given.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        kind = _recognise(path)
        if kind is None:
            raise CheckpointError(f"{path} is no tokenizer that is known here. Looked for: {_looked_for()}")
        return with_templates(kind.read(path, pattern, Beside(path.parent)), path.parent)
    folder = find_folder(path_or_name, FILES, "tokenizer", "tokenizer.json or tokenizer.model, or such a file")
    base = base_of_adapter(folder)
    if base is not None and not any((folder / name).is_file() for name in (TOKENIZER, "tokenizer.model")):
        return load_tokenizer(base, pattern)
    kind, path = _find(folder)
    return with_templates(kind.read(path, pattern, Beside(folder)), folder)


def base_of_adapter(folder: Path) -> str | None:
    """The model that an adapter's folder says it belongs to, None for other folders."""
    if not (folder / "adapter_config.json").is_file():
        return None
    told = read_json(folder / "adapter_config.json")
    base = told.get("base_model_name_or_path") if isinstance(told, dict) else None
    return base if isinstance(base, str) and base else None


def _recognise(path: Path) -> Format | None:
    """The kind of a file: by its name and its beginning, or else by its beginning alone."""
    named = [kind for kind in FORMATS if any(path.match(name) for name in kind.names)]
    for kind in [*named, *(kind for kind in FORMATS if kind not in named)]:
        if kind.sniff(path):
            return kind
    # Damaged from the first byte on: the reader of this name says what it expects.
    return named[0] if named and named[0].module is None else None


def _find(folder: Path) -> tuple[Format, Path]:
    """The file to read: the usual names first, then the only file of a usual pattern."""
    entries = sorted(entry for entry in itertools.islice(folder.iterdir(), MOST_ENTRIES) if entry.is_file())
    loose: list[tuple[Format, Path]] = []
    # SentencePiece's own file says more than the tokenizer.json that is saved beside it.
    by_model = any(path.name == "tokenizer.model" for path in entries) and (
        read_config(folder).get("groundup_kind") == "sentencepiece"
    )
    for kind in FORMATS[1:] if by_model else FORMATS:
        for name in kind.names:
            matching = [path for path in entries if path.match(name)]
            exact = "*" not in name
            if exact and matching and (kind.module is None or kind.sniff(matching[0])):
                return kind, matching[0]
            loose += [(kind, path) for path in matching if not exact and kind.sniff(path)]
    different = {path: kind for kind, path in reversed(loose)}
    if len(different) == 1:
        return loose[0]
    if different:
        names = ", ".join(path.name for path in sorted(different))
        raise CheckpointError(f"{folder} holds several tokenizers ({names}): give the path of one file")
    found = ", ".join(path.name for path in entries[:12]) or "nothing"
    raise CheckpointError(f"{folder} has no tokenizer. Looked for: {_looked_for()}; found {found}")


def _looked_for() -> str:
    return "; ".join(f"{kind.what} ({', '.join(kind.names)})" for kind in FORMATS)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"groundup.tokenizers.formats.{name}")


def _says_itself(path: Path, pattern: str | None) -> None:
    if pattern is not None:
        raise UsageError(f"{path} says itself how text is cut: leave `pattern` off")


def _read_json(path: Path, pattern: str | None, beside: Beside) -> Tokenizer:
    _says_itself(path, pattern)
    return read_tokenizer_json(path, beside.names)


def _read_sentencepiece(path: Path, pattern: str | None, beside: Beside) -> Tokenizer:
    _says_itself(path, pattern)
    read = _module("sentencepiece_model").read
    return read(path, names=beside.names, added=beside.tokens())


def _read_ranks(path: Path, pattern: str | None, beside: Beside) -> Tokenizer:
    read = _module("tiktoken_ranks").read
    special = beside.added or None
    return read(path, pattern, special_tokens=special, names=beside.names)


# How classes of transformers cut text, where the files do not say it.
_CLASSES: Mapping[str, tuple[str, str | None]] = {
    "GPT2Tokenizer": ("gpt2", None),
    "CodeGenTokenizer": ("gpt2", None),
    "Qwen2Tokenizer": ("qwen", "NFC"),
}


def _read_pair(path: Path, pattern: str | None, beside: Beside) -> Tokenizer:
    module, ranks = _module("openai_gpt2"), _module("tiktoken_ranks")
    pair = module.find_pair(path)
    if pair is None:
        raise CheckpointError(f"{path}: vocabulary and merges must lie beside each other, under names such as {PAIRS}")
    form = None
    if pattern is None:
        name = str(beside.config.get("tokenizer_class", "GPT2Tokenizer")).removesuffix("Fast")
        if name == "CLIPTokenizer":
            return _module("clip").read(pair[0], merges=pair[1], names=beside.names, added=beside.added)
        if name not in _CLASSES or beside.config.get("add_prefix_space"):
            raise UsageError(
                f"{path}: how a {name} cuts text is not known here: give `pattern`, or save it as tokenizer.json first"
            )
        pattern, form = _CLASSES[name]
    pattern = ranks.QWEN if pattern == "qwen" else pattern
    return module.read(
        pair[0], pattern, merges=pair[1], normal_form=form, names=beside.names, added=beside.added,
    )  # fmt: skip


def _read_bert(path: Path, pattern: str | None, beside: Beside) -> Tokenizer:
    _says_itself(path, pattern)
    read = _module("bert_vocab").read
    return read(path, config=beside.config)


def _read_rwkv(path: Path, pattern: str | None, beside: Beside) -> Tokenizer:
    _says_itself(path, pattern)
    return _module("rwkv_vocabulary").read(path)


# In the order in which they are looked for.
FORMATS = (
    Format("tokenizer.json", (TOKENIZER,), _read_json),
    Format("SentencePiece", ("tokenizer.model", "spiece.model", "*.model"), _read_sentencepiece, "sentencepiece_model"),
    Format("tiktoken ranks", ("tokenizer.model", "*.tiktoken", "*.model"), _read_ranks, "tiktoken_ranks"),
    Format(
        "vocabulary with merges.txt or vocab.bpe beside it",
        ("vocab.json", "encoder.json", "*encoder.json", "*vocab.json"),
        _read_pair,
        "openai_gpt2",
    ),
    Format("RWKV vocabulary", ("rwkv_vocab*.txt",), _read_rwkv, "rwkv_vocabulary"),
    Format("BERT vocabulary", ("vocab.txt", "*vocab.txt"), _read_bert, "bert_vocab"),
)


def load_vocab_and_merges(vocab: str | Path, merges: str | Path, pattern: str = "gpt2") -> ByteBPE:
    """Byte-level BPE from a JSON vocabulary and a text file of merges (GPT-2's encoder.json + vocab.bpe).

    `<|endoftext|>`, where the vocabulary has it, is a special token and stands for BOS and EOS, as in GPT-2, unless
    tokenizer_config.json beside the vocabulary says otherwise.
    """
    beside = Beside(Path(vocab).parent)
    read = _module("openai_gpt2").read
    found = read(vocab, pattern, merges=merges, names=beside.names, added=beside.added)
    with_templates(found, Path(vocab).parent)
    return found


def _added(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """Tokens that tokenizer_config.json or added_tokens.json adds: spelling -> id."""
    added: dict[str, int] = {}
    if (folder / ADDED).is_file():
        value = read_json(folder / ADDED)
        if not isinstance(value, dict) or not all(type(number) is int for number in value.values()):
            raise CheckpointError(f"{folder / ADDED} must hold an object from token to id")
        added |= value
    decoder = config.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        raise CheckpointError(f"{folder / CONFIG}: added_tokens_decoder must be an object")
    for number, token in decoder.items():
        spelling = _spelling(token)
        if not spelling or not (number.isascii() and number.isdigit() and len(number) < 9):
            raise CheckpointError(f"{folder / CONFIG}: added_tokens_decoder: {number!r:.40}: {token!r:.80} is no token")
        added[spelling] = int(number)
    return added


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
