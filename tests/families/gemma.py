"""Gemma 1, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

reference = Reference(
    cases={
        "gemma": lambda: tf.GemmaConfig(**LLAMA | dict(num_key_value_heads=1), head_dim=16),
        "gemma-biased": lambda: tf.GemmaConfig(**GROUPED, head_dim=8, attention_bias=True),
    },
    # Held against a copy of the released file of 2B: the same, but for hidden_activation, which came later.
    released={
        "gemma-2b": """{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "hidden_activation":
        "gelu_pytorch_tanh", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384,
        "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8, "num_hidden_layers": 18,
        "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 10000.0, "torch_dtype": "bfloat16", "transformers_version": "4.38.0.dev0", "use_cache": true,
        "vocab_size": 256000}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "gemma-2b": 2_506_172_416,
        "gemma-7b": 8_537_680_896,
    },
)
