"""Published models by name, as the fields of their config.json that estimates need."""

from typing import Any


def _gpt2(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    }


def _llama(
    layers: int, width: int, heads: int, mlp: int, *, kv: int | None = None, vocab: int = 32000, context: int = 2048
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv or heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }


KNOWN: dict[str, dict[str, Any]] = {
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "llama-7b": _llama(32, 4096, 32, 11008),
    "llama-13b": _llama(40, 5120, 40, 13824),
    "llama-33b": _llama(60, 6656, 52, 17920),
    "llama-65b": _llama(80, 8192, 64, 22016),
    "llama-2-7b": _llama(32, 4096, 32, 11008, context=4096),
    "llama-2-13b": _llama(40, 5120, 40, 13824, context=4096),
    "llama-2-70b": _llama(80, 8192, 64, 28672, kv=8, context=4096),
    "llama-3-8b": _llama(32, 4096, 32, 14336, kv=8, vocab=128256, context=8192),
    "llama-3-70b": _llama(80, 8192, 64, 28672, kv=8, vocab=128256, context=8192),
}
"""Name -> config fields."""
