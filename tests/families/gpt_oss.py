"""gpt-oss, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

MOE = GROUPED | dict(num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=5)
YARN = dict(
    rope_type="yarn", rope_theta=10_000.0, factor=4.0, original_max_position_embeddings=16, truncate=False,
    beta_fast=4.0, beta_slow=1.0,
)  # fmt: skip

reference = Reference(
    cases={
        "gpt-oss": lambda: tf.GptOssConfig(**MOE, rope_parameters=YARN),
        "gpt-oss-clamped": lambda: tf.GptOssConfig(
            **MOE | dict(head_dim=16, num_experts_per_tok=3), swiglu_limit=0.05, tie_word_embeddings=True,
            attention_bias=False, layer_types=["full_attention", "sliding_attention", "full_attention"],
        ),
        "gpt-oss-packable": lambda: tf.GptOssConfig(**MOE | dict(intermediate_size=64)),
    },
    # Held against files of models derived from it: the same in the fields that were shown (up to rope_theta).
    released={
        "gpt-oss-20b": """{"architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
        "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
        "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 2880, "layer_types":
        ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
        "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention",
        "sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
        "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention",
        "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
        "output_router_logits": false, "pad_token_id": 199999, "quantization_config": {"modules_to_not_convert":
        ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
        "quant_method": "mxfp4"}, "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0,
        "factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
        "tie_word_embeddings": false, "transformers_version": "4.55.0.dev0", "use_cache": true,
        "vocab_size": 201088}""",
    },
    unused=("router_aux_loss_coef",),  # in training alone
    # OpenAI 2025 as 20.9B and 116.8B: counts of these shapes in transformers
    parameters={
        "gpt-oss-20b": 20_914_757_184,
        "gpt-oss-120b": 116_829_156_672,
    },
)  # fmt: skip
