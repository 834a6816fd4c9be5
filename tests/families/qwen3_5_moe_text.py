"""The text model of Qwen3.5-MoE, held against transformers."""

import transformers as tf

from families.qwen3_next import EXPERTS, HYBRID, LOOSE, SHORT
from families.reference import Reference

SPARSE = {name: HYBRID[name] for name in HYBRID if name != "intermediate_size"} | EXPERTS

reference = Reference(
    rows=("LM-47",),
    cases={
        "qwen3.5-moe": lambda: tf.Qwen3_5MoeTextConfig(**SPARSE),
        "qwen3.5-moe-turns": lambda: tf.Qwen3_5MoeTextConfig(
            **SPARSE | SHORT | dict(attention_bias=True, tie_word_embeddings=True)
        ),
    },
    # Written down from knowledge of the file, checked against copies of it on the hub; of the whole model's file this
    # is `text_config`.
    released={
        "qwen3.5-35b-a3b": """{"attention_bias": false, "attention_dropout": 0.0, "attn_output_gate": true,
        "dtype": "bfloat16", "eos_token_id": 248044, "full_attention_interval": 4, "head_dim": 256,
        "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_value_head_dim": 128, "mamba_ssm_dtype": "float32", "max_position_embeddings": 262144,
        "mlp_only_layers": [], "model_type": "qwen3_5_moe_text", "moe_intermediate_size": 512,
        "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": false, "num_attention_heads": 16,
        "num_experts": 256, "num_experts_per_tok": 8, "num_hidden_layers": 40, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_parameters": {"mrope_interleaved": true, "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25, "rope_theta": 10000000, "rope_type": "default"},
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 512, "tie_word_embeddings": false,
        "use_cache": true, "vocab_size": 248320}""",
    },
    # The sizes are those of the whole models, images included; counts of these shapes in transformers.
    parameters={
        "qwen3.5-35b-a3b": 34_660_610_688,
        "qwen3.5-122b-a10b": 122_111_526_912,
        "qwen3.5-397b-a17b": 396_346_350_336,
    },
    trims=False,
    **LOOSE,
)
