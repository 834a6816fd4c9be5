"""DeepSeek-V3, held against transformers."""

import transformers as tf

from families.deepseek_v2 import LATENT, MOE, YARN
from families.reference import Reference
from families.shapes import LLAMA

GROUPS = dict(n_group=3, topk_group=2)
HEADS = dict(num_key_value_heads=4)

reference = Reference(
    rows=("LAY-25",),
    cases={
        "deepseek-v3": lambda: tf.DeepseekV3Config(**LLAMA, **HEADS, **LATENT, **MOE, **GROUPS),
        "deepseek-v3-yarn": lambda: tf.DeepseekV3Config(
            **LLAMA, **HEADS, **LATENT, **MOE, **GROUPS, rope_parameters=YARN, tie_word_embeddings=True
        ),
        "deepseek-v3-biased": lambda: tf.DeepseekV3Config(
            **LLAMA, **HEADS, **LATENT | dict(q_lora_rank=None), **MOE | dict(first_k_dense_replace=2), n_group=1,
            topk_group=1, norm_topk_prob=False, attention_bias=True, rope_interleave=False, n_shared_experts=2,
        ),
    },
    # Held against a copy that was prepared for training, which has num_nextn_predict_layers 0; without the release's
    # quantization_config (blocks of FP8), which the files converted to bfloat16 lack.
    released={
        "deepseek-v3": """{"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
        "first_k_dense_replace": 3,
        "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
        "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
        "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "pretraining_tp": 1,
        "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn"}, "rope_theta": 10000,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": true, "tie_word_embeddings": false,
        "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "transformers_version": "4.33.1",
        "use_cache": true, "v_head_dim": 128, "vocab_size": 129280}""",
    },
    unused=("aux_loss_alpha",),  # the file has that of V2; the size here has the paper's 0.0001 (section 4.2)
    # DeepSeek-AI 2024 as 671B: the count of this shape in transformers, without the module that predicts two tokens
    parameters={"deepseek-v3": 671_026_404_352},
)  # fmt: skip
