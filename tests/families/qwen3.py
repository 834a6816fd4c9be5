"""Qwen3, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

reference = Reference(
    rows=("LM-47",),
    cases={
        "qwen3": lambda: tf.Qwen3Config(**GROUPED, head_dim=16),
        "qwen3-biased": lambda: tf.Qwen3Config(**GROUPED, attention_bias=True, tie_word_embeddings=True),
        "qwen3-window": lambda: tf.Qwen3Config(
            **GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1
        ),
    },
    # Written down from knowledge of the files, not fetched from the hub.
    released={
        "qwen3-8b": """{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 12288, "max_position_embeddings": 40960,
        "max_window_layers": 36, "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}""",
    },
    unused=("max_window_layers",),  # where there is no window
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "qwen3-0.6b": 596_049_920,
        "qwen3-1.7b": 1_720_574_976,
        "qwen3-4b": 4_022_468_096,
        "qwen3-8b": 8_190_735_360,
        "qwen3-14b": 14_768_307_200,
        "qwen3-32b": 32_762_123_264,
    },
)
