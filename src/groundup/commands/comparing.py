"""Prompts and greedy continuations by which two models are compared. No torch at import, as in every command."""

import contextlib
from typing import Any

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
