"""Which model and tokenizer a word of the command line means. No torch at import, as in every command."""

from pathlib import Path
from typing import Any

from groundup.base.errors import UsageError

WORLD_ROWS = 65_536
"""Rows of RWKV's models whose tokenizer is the World vocabulary."""


def model_and_tokenizer(source: str, dtype: str | None = None, device: str = "auto") -> tuple[Any, Any]:
    """What a command is given by the name of a model: a run stands for its final one.

    Raises:
        UsageError, CheckpointError: as `model_of`, `models.hub.load_model` and `tokenizer_of`.
    """
    from groundup.models.hub import load_model

    source = model_of(source)
    model = load_model(source, dtype=dtype, device=device)
    return model, tokenizer_of(source, model.config.vocab_size)


def model_of(source: str) -> str:
    """The model that a source means: a run folder stands for its final/."""
    path = Path(source).expanduser()
    if not (path / "config.yaml").is_file() or (path / "config.json").is_file():
        return source
    if not any((path / "final" / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UsageError(f"{path} is a run that has no final model yet: let it end, or resume it")
    return str(path / "final")


def tokenizer_of(model: str, vocab_size: int) -> Any:
    """The tokenizer for a model that text goes through: what lies in its folder.

    An RWKV file has nothing in it that tells: with 65,536 ids it is the World vocabulary that lies beside it, otherwise
    the tokenizer.json of GPT-NeoX, as the authors call them.

    Raises:
        CheckpointError: there is none; the message says what is looked for.
    """
    from groundup.base.errors import CheckpointError
    from groundup.models.formats.formats import RWKV, find_format
    from groundup.tokenizers.hub import load_tokenizer

    path = Path(model).expanduser()
    folder = path.parent if path.is_file() else path
    if path.suffix == ".gguf":
        return load_tokenizer(path)
    if not path.exists() or not isinstance(find_format(path), RWKV):
        return load_tokenizer(folder if path.is_file() else model)
    names = ("rwkv_vocab*.txt",) if vocab_size == WORLD_ROWS else ("20B_tokenizer.json", "tokenizer.json")
    found = [file for name in names for file in sorted(folder.glob(name))]
    if not found:
        raise CheckpointError(
            f"no tokenizer for an RWKV model with {vocab_size:,} ids in {folder}: put {' or '.join(names)} beside it"
        )
    return load_tokenizer(found[0])


def tokenizer_beside(model: str) -> Any:
    """The tokenizer in a model's folder, or None where there is none that can be read; that is said."""
    from groundup.base.console import warn
    from groundup.base.errors import GroundupError
    from groundup.models.formats.formats import find_weights
    from groundup.tokenizers.hub import PAIRS, TOKENIZER, load_tokenizer

    path = find_weights(model)
    folder = path if path.is_dir() else path.parent
    if path.suffix == ".gguf":
        folder = path
    elif not any((folder / name).is_file() for name in (TOKENIZER, *(vocab for vocab, _ in PAIRS))):
        return None
    try:
        return load_tokenizer(folder)
    except GroundupError as error:
        warn(f"the tokenizer is left out: {error}")
        return None
