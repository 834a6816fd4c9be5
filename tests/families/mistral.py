"""Mistral 7B, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

reference = Reference(
    rows=("LM-34",),
    cases={
        "mistral": lambda: tf.MistralConfig(**GROUPED, sliding_window=5),
        "mistral-without-window": lambda: tf.MistralConfig(**GROUPED, sliding_window=None),
    },
    # v0.1 held against a copy of the released file, and its window against a second source; v0.2 was not found, and
    # is written down from knowledge of the file.
    released={
        "mistral-7b-v0.1": """{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}""",
        "mistral-7b-v0.2": """{"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0", "use_cache": true, "vocab_size": 32000}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "mistral-7b-v0.1": 7_241_732_096,
        "mistral-7b-v0.3": 7_248_023_552,
    },
    same_parameters=("mistral-7b-v0.2",),
)
