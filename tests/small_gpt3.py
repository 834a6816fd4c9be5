"""A small GPT-3 that a test trains on texts of its own, character by character."""

import json
from collections.abc import Iterable
from pathlib import Path

from groundup.cli import main


def trained(folder: Path, texts: Iterable[str], *, context: int, positions: int, window: int, steps: int) -> Path:
    """The folder of a model of 0.1 million parameters that has read `texts` in rows of `context` characters."""
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    recipe = {
        "model": {
            **{"model_type": "gpt3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"head_dim": 16, "max_position_embeddings": positions, "window_size": window},
        },
        "tokenizer": {"kind": "characters", "special_tokens": ["<|endoftext|>"]},
        "data": {"source": [str(folder / "texts.jsonl")], "context_length": context},
        "training": {
            **{"steps": steps, "batch_size": 16, "optimizer": {"kind": "adamw", "lr": 3e-3, "betas": [0.9, 0.95]}},
            **{"schedule": {"kind": "cosine", "warmup_steps": 50}, "clip": 1.0, "seed": 0},
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["train", str(folder / "recipe.yaml"), "--out-dir", str(folder / "run")]) == 0
    return folder / "run" / "final"
