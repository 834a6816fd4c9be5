"""Which model and tokenizer a word means; prompts and greedy continuations by which two models are compared.

No torch at import, as in every command.
"""

import contextlib
from pathlib import Path
from typing import Any

from groundup.base.errors import UsageError

TEXTS = (
    "The",
    "Once upon a time there was",
    "def add(a, b):\n    return",
    "Water boils at 100 degrees, and ice",
    "¿Cómo estás? 你好, мир!",
)
NEW_TOKENS = 16
LONGEST = 2**31
"""The context of a model that nothing bounds."""
WORLD_ROWS = 65_536
"""Rows of RWKV's models whose tokenizer is the World vocabulary."""


def probe_prompts(tokenizer: Any, vocab_size: int, limit: int) -> list[list[int]]:
    """Ids to compare models on: texts where there is a tokenizer, and seeded random ids in any case."""
    import torch

    generator = torch.Generator().manual_seed(0)
    found = list(encoded_texts(tokenizer).values()) if tokenizer is not None else []
    found += [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in (1, 7, 24)]
    return [ids[: max(1, limit)] for ids in found if ids and max(ids) < vocab_size]


def encoded_texts(tokenizer: Any) -> dict[str, list[int]]:
    """Text -> ids, for the texts that the tokenizer can encode, and one made of its own tokens."""
    from groundup.base.errors import GroundupError

    found = {}
    own = tokenizer.decode(range(min(tokenizer.vocab_size, 32)), skip_special=True)
    for text in (*TEXTS, own):
        with contextlib.suppress(GroundupError):  # characters that a vocabulary without an unknown token lacks
            found[text] = tokenizer.encode(text)
    return found


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """The `count` most likely next tokens, one by one, with the model's own state; fewer where the context is full."""
    import torch

    count = min(count, (model.config.max_position_embeddings or LONGEST) - len(prompt))
    if count <= 0:
        return []
    state = model.make_state(1, len(prompt) + count)
    step, found = torch.tensor([prompt], device=model.device), []
    with torch.inference_mode():
        for _ in range(count):
            logits = model(step, state=state, head=lambda hidden, lm_head: lm_head(hidden[:, -1:]))
            step = logits[:, -1].argmax(-1, keepdim=True)
            found.append(int(step))
    return found


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
