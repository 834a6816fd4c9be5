"""Llama, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import LLAMA

LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=10_000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)

reference = Reference(
    rows=("LM-25", "LM-26", "LAY-04", "LAY-07", "LAY-24"),
    cases={
        "llama": lambda: tf.LlamaConfig(**LLAMA),
        "llama-tied": lambda: tf.LlamaConfig(**LLAMA, tie_word_embeddings=True),
        "llama-grouped": lambda: tf.LlamaConfig(**LLAMA, num_key_value_heads=2, head_dim=16),
        "llama-biased": lambda: tf.LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True),
        "llama-3.1": lambda: tf.LlamaConfig(**LLAMA, num_key_value_heads=2, rope_parameters=LLAMA3_ROPE),
        "llama-linear": lambda: tf.LlamaConfig(
            **LLAMA, rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0)
        ),
    },
    # Touvron et al. 2023, 6.7B, 13.0B, 32.5B, 65.2B, and Llama 2 34B (the shape that Code Llama 34B kept) and 70B
    parameters={
        "llama-7b": 6_738_415_616,
        "llama-13b": 13_015_864_320,
        "llama-33b": 32_528_943_616,
        "llama-65b": 65_285_660_672,
        "llama-2-34b": 33_743_970_304,
        "llama-2-70b": 68_976_648_192,
        # Roziere et al. 2023: the 16 rows more are for infilling; 34B has none
        "code-llama-7b": 6_738_546_688,
        "code-llama-13b": 13_016_028_160,
        "code-llama-70b": 68_976_910_336,
        "llama-3-8b": 8_030_261_248,
        "llama-3-70b": 70_553_706_496,
    },
    same_parameters=("llama-2-7b", "llama-2-13b", "code-llama-34b"),
)
