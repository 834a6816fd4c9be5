"""DeepSeek-V2, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import LLAMA

LATENT = dict(q_lora_rank=20, kv_lora_rank=12, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=6)
MOE = dict(n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=12, first_k_dense_replace=1)
YARN = dict(
    rope_type="yarn", rope_theta=10_000.0, factor=4.0, original_max_position_embeddings=16, mscale=0.7,
    mscale_all_dim=0.5, beta_fast=4.0, beta_slow=1.0,
)  # fmt: skip

reference = Reference(
    cases={
        "deepseek-v2": lambda: tf.DeepseekV2Config(**LLAMA, **LATENT, **MOE),
        "deepseek-v2-plain-queries": lambda: tf.DeepseekV2Config(
            **LLAMA, **LATENT | dict(q_lora_rank=None), **MOE, rope_parameters=YARN, tie_word_embeddings=True
        ),
        "deepseek-v2-groups": lambda: tf.DeepseekV2Config(
            **LLAMA, **LATENT, **MOE, n_group=3, topk_group=2, topk_method="group_limited_greedy",
            routed_scaling_factor=2.0, attention_bias=True, n_shared_experts=1,
        ),
    },
    # Held against a copy of the released file: it leaves out aux_loss_alpha, seq_aux, q_lora_rank (null),
    # attention_dropout and tie_word_embeddings, and is the same in all else.
    released={
        "deepseek-v2-lite": """{"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 100000, "eos_token_id": 100001,
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 10944, "kv_lora_rank": 512, "max_position_embeddings": 163840,
        "model_type": "deepseek_v2", "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1,
        "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": false, "num_attention_heads": 16,
        "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16, "pretraining_tp": 1,
        "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 4096, "type": "yarn"}, "rope_theta": 10000,
        "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": true, "tie_word_embeddings": false,
        "topk_group": 1, "topk_method": "greedy", "torch_dtype": "bfloat16", "transformers_version": "4.33.1",
        "use_cache": true, "v_head_dim": 128, "vocab_size": 102400}""",
    },
    # DeepSeek-AI 2024 as 15.7B and 236B: counts of these shapes in transformers
    parameters={
        "deepseek-v2-lite": 15_706_484_224,
        "deepseek-v2": 235_741_434_880,
    },
)  # fmt: skip
