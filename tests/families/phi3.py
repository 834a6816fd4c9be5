"""Phi-3, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

reference = Reference(
    rows=("LM-46",),
    cases={
        "phi3": lambda: tf.Phi3Config(**LLAMA, pad_token_id=0),
        "phi3-grouped": lambda: tf.Phi3Config(**GROUPED, pad_token_id=0, sliding_window=5, tie_word_embeddings=True),
    },
    # Held against files of models derived from it: the same, but for attention_bias, which came later.
    released={
        "phi-3-mini-4k": """{"architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
        "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": true, "vocab_size": 32064}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "phi-3-mini-4k": 3_821_079_552,
        "phi-3-medium-4k": 13_960_238_080,
    },
)
