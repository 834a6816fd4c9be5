"""tokenizer.json and tokenizer_config.json, as the `tokenizers` and `transformers` libraries write and read them.

Writing: what those libraries read encodes as ours does. Reading: each part of the file must be one that is understood
here, or the file is refused, naming the part: a tokenizer that is nearly right silently ruins a model.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.files import write_atomic
from groundup.tokenizers.pretokenize import PATTERNS

if TYPE_CHECKING:
    from groundup.tokenizers.added_tokens import AddedToken
    from groundup.tokenizers.byte_bpe import ByteBPE
    from groundup.tokenizers.characters import Characters
    from groundup.tokenizers.pipeline.pipeline import Pipeline
    from groundup.tokenizers.tokenizer import Tokenizer
    from groundup.tokenizers.trie import Trie
    from groundup.tokenizers.words import Words

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"

ANY_CHARACTER = r"[\s\S]"
# transformers' way to say "no limit".
NO_LIMIT = 10**30
# Characters: more than any text that is tokenized at once.
WHOLE_TEXT = 10**9


def write_folder(tokenizer: "Tokenizer", folder: str | Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and, with a template, chat_template.jinja, each atomically.

    Named templates go to additional_chat_templates/. Those of an earlier tokenizer in the same folder are removed.
    """
    from groundup.tokenizers.chat.files import write_templates

    folder = Path(folder)
    write_atomic(folder / TOKENIZER, json.dumps(tokenizer.to_json(), ensure_ascii=False, indent=2) + "\n")
    write_atomic(folder / CONFIG, json.dumps(config_json(tokenizer), ensure_ascii=False, indent=2) + "\n")
    write_templates(tokenizer, folder)


def config_json(tokenizer: "Tokenizer") -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    named = {f"{part}_token": getattr(tokenizer.names, part) for part in ("bos", "eos", "pad", "unk")}
    return {
        "backend": "tokenizers",
        **{key: token for key, token in named.items() if token is not None},
        "clean_up_tokenization_spaces": False,
        "model_max_length": NO_LIMIT,
        "tokenizer_class": "TokenizersBackend",
    }


def _frame(tokenizer: "Tokenizer", **parts: Any) -> dict[str, Any]:
    added = [added_json(token) for token in sorted(tokenizer.added.tokens, key=lambda token: token.id)]
    order = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return head | {key: parts.get(key) for key in order}


def added_json(token: "AddedToken") -> dict[str, Any]:
    """An entry of `added_tokens`."""
    return {
        "id": token.id,
        "content": token.content,
        "single_word": token.single_word,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.special,
    }


def characters_to_json(tokenizer: "Characters") -> dict[str, Any]:
    """A word-level model whose words are single characters."""
    return _frame(
        tokenizer,
        pre_tokenizer=_split(ANY_CHARACTER),
        post_processor=tokenizer.post_processor,
        decoder={"type": "Fuse"},
        model={
            "type": "WordLevel",
            "vocab": tokenizer.model_vocab,
            # The library wants a name here; where the vocabulary lacks it, an unknown character is its error too.
            "unk_token": tokenizer.names.unk or "<unk>",
        },
    )


def pipeline_to_json(tokenizer: "Pipeline") -> dict[str, Any]:
    """All parts, each as it writes itself."""
    parts = {key: getattr(tokenizer, key) for key in ("normalizer", "pre_tokenizer", "decoder", "model")}
    written = {key: None if part is None else part.to_json() for key, part in parts.items()}
    return _frame(tokenizer, post_processor=tokenizer.post_processor, **written)


def byte_bpe_to_json(tokenizer: "ByteBPE") -> dict[str, Any]:
    """A BPE model over byte symbols."""
    return _frame(
        tokenizer,
        normalizer=None if tokenizer.normal_form is None else {"type": tokenizer.normal_form},
        pre_tokenizer=_byte_level_pre_tokenizer(tokenizer.pattern),
        post_processor=tokenizer.post_processor,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.ignore_merges,
            "vocab": tokenizer.model_vocab,
            "merges": [list(pair) for pair in tokenizer.merges],
        },
    )


def _byte_level_pre_tokenizer(pattern: str) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if pattern == PATTERNS["gpt2"]:
        return level | {"use_regex": True}
    return {"type": "Sequence", "pretokenizers": [_split(pattern), level | {"use_regex": False}]}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def trie_to_json(tokenizer: "Trie") -> dict[str, Any]:
    """Greedy longest match over byte symbols, as a WordPiece model that takes the whole text for one word."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _frame(
        tokenizer,
        pre_tokenizer=level,
        post_processor=tokenizer.post_processor,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        model={
            "type": "WordPiece",
            "unk_token": tokenizer.names.unk or "<unk>",
            "continuing_subword_prefix": "",
            "max_input_chars_per_word": WHOLE_TEXT,
            "vocab": tokenizer.model_vocab,
        },
    )


def words_to_json(tokenizer: "Words") -> dict[str, Any]:
    """A word-level model over a split at white space and signs.

    Without a decoder other readers put a space before every token, closing signs too.
    """
    return _frame(
        tokenizer,
        pre_tokenizer={"type": "Sequence", "pretokenizers": words_splits(tokenizer.signs)},
        post_processor=tokenizer.post_processor,
        decoder=None,
        model={"type": "WordLevel", "vocab": tokenizer.model_vocab, "unk_token": tokenizer.names.unk or "<unk>"},
    )


def words_splits(signs: str) -> list[dict[str, Any]]:
    """The pre-tokenizers of `Words`: white space is left out, and signs stand alone."""
    return [_split(r"\s+") | {"behavior": "Removed"}, _split(signs)]
