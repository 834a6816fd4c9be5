"""Qwen1.5-MoE and Qwen2-MoE, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

MOE = GROUPED | dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=24)

reference = Reference(
    rows=("LM-33",),
    cases={
        "qwen2-moe": lambda: tf.Qwen2MoeConfig(**MOE),
        "qwen2-moe-mixed": lambda: tf.Qwen2MoeConfig(
            **MOE | dict(num_hidden_layers=4), decoder_sparse_step=2, mlp_only_layers=[1], norm_topk_prob=True
        ),
        "qwen2-moe-window": lambda: tf.Qwen2MoeConfig(
            **MOE, use_sliding_window=True, sliding_window=4, max_window_layers=3, tie_word_embeddings=True
        ),
    },
    # Written down from knowledge of the files, not fetched from the hub.
    released={
        "qwen2-57b-a14b": """{"architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151643, "hidden_act": "silu",
        "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944,
        "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2_moe",
        "moe_intermediate_size": 2560, "norm_topk_prob": false, "num_attention_heads": 28, "num_experts": 64,
        "num_experts_per_tok": 8, "num_hidden_layers": 28, "num_key_value_heads": 4, "output_router_logits": false,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 20480, "sliding_window": 65536, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "use_sliding_window": false,
        "vocab_size": 151936}""",
    },
    # 14.3B and 57.4B on their cards; counts of these shapes in transformers
    parameters={
        "qwen1.5-moe-a2.7b": 14_315_784_192,
        "qwen2-57b-a14b": 57_408_658_944,
    },
)
