"""Mixtral, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

reference = Reference(
    rows=("LM-35",),
    cases={
        "mixtral": lambda: tf.MixtralConfig(**GROUPED, num_local_experts=4),
        "mixtral-one-expert": lambda: tf.MixtralConfig(**GROUPED, num_local_experts=3, num_experts_per_tok=1),
        "mixtral-window": lambda: tf.MixtralConfig(
            **GROUPED, num_local_experts=4, num_experts_per_tok=3, sliding_window=5, tie_word_embeddings=True
        ),
    },
    # Held against a copy of the released file: the same.
    released={
        "mixtral-8x7b": """{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
        "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "num_local_experts": 8, "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0.dev0", "use_cache": true, "vocab_size": 32000}""",
    },
    unused=("router_aux_loss_coef",),  # in training alone; 8x22B was released with another
    # Jiang et al. 2024 as 46.7B, and the release of 8x22B as 141B: counts of these shapes in transformers
    parameters={
        "mixtral-8x7b": 46_702_792_704,
        "mixtral-8x22b": 140_620_634_112,
    },
)
