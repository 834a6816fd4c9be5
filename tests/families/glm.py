"""GLM-4 in transformers' layout, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

TINY = GROUPED | dict(head_dim=8, pad_token_id=0)

reference = Reference(
    cases={
        "glm": lambda: tf.GlmConfig(**TINY),
        "glm-tied": lambda: tf.GlmConfig(
            **TINY, attention_bias=False, tie_word_embeddings=True, rope_parameters=dict(rope_theta=500.0)
        ),
    },
    # Held against the file of the release as one index stored it: the same, but for rope_theta, which was 10000.0
    # there. The file of glm-4-9b-chat has rope_ratio 500, and its conversion multiplies: 5,000,000, as here.
    released={
        "glm-4-9b-chat-hf": """{"architectures": ["GlmForCausalLM"], "attention_bias": true,
        "attention_dropout": 0.0, "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 13696,
        "max_position_embeddings": 131072, "model_type": "glm", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 2, "pad_token_id": 151329, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1.5625e-07, "rope_theta": 5000000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.46.0.dev0", "use_cache": true,
        "vocab_size": 151552}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={"glm-4-9b-hf": 9_399_951_360, "glm-4-9b-chat-1m-hf": 9_483_857_920},
    same_parameters=("glm-4-9b-chat-hf",),
)
