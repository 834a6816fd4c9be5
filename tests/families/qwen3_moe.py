"""Qwen3-MoE, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

MOE = GROUPED | dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12)

reference = Reference(
    rows=("LM-47",),
    cases={
        "qwen3-moe": lambda: tf.Qwen3MoeConfig(**MOE, head_dim=16, norm_topk_prob=True),
        "qwen3-moe-mixed": lambda: tf.Qwen3MoeConfig(
            **MOE | dict(num_hidden_layers=4), decoder_sparse_step=2, mlp_only_layers=[1], attention_bias=True
        ),
        "qwen3-moe-window": lambda: tf.Qwen3MoeConfig(
            **MOE, use_sliding_window=True, sliding_window=4, tie_word_embeddings=True
        ),
    },
    # Written down from knowledge of the files, not fetched from the hub.
    released={
        "qwen3-30b-a3b": """{"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32,
        "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
        "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
        "vocab_size": 151936}""",
    },
    unused=("max_window_layers",),  # where there is no window
    # 30.5B and 235B on their cards; counts of these shapes in transformers
    parameters={
        "qwen3-30b-a3b": 30_532_122_624,
        "qwen3-235b-a22b": 235_093_634_560,
    },
)
