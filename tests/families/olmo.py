"""OLMo, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

reference = Reference(
    rows=("LM-46",),
    cases={
        "olmo": lambda: tf.OlmoConfig(**LLAMA, pad_token_id=0),
        "olmo-clipped": lambda: tf.OlmoConfig(**GROUPED, pad_token_id=0, clip_qkv=0.1, tie_word_embeddings=True),
        "olmo-biased": lambda: tf.OlmoConfig(**GROUPED, pad_token_id=0, attention_bias=True, clip_qkv=0.2),
    },
    # Written down from knowledge of the file, not fetched from the hub.
    released={
        "olmo-7b": """{"architectures": ["OlmoForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "clip_qkv": null, "eos_token_id": 50279, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 2048,
        "model_type": "olmo", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "pad_token_id": 1, "pretraining_tp": 1, "rope_scaling": null, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "torch_dtype": "float32", "transformers_version": "4.40.0.dev0",
        "use_cache": true, "vocab_size": 50304}""",
    },
    # Groeneveld et al. 2024, table 1, as 1.18B and 6.89B; counts of these shapes in transformers
    parameters={"olmo-1b": 1_176_764_416, "olmo-7b": 6_888_095_744},
    same_parameters=("olmo-1.7-7b",),
)
