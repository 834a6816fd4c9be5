"""The text model of Qwen3.5, held against transformers."""

import transformers as tf

from families.qwen3_next import HYBRID, LOOSE, SHORT
from families.reference import Reference

reference = Reference(
    rows=("LM-47",),
    cases={
        "qwen3.5": lambda: tf.Qwen3_5TextConfig(**HYBRID),
        "qwen3.5-turns": lambda: tf.Qwen3_5TextConfig(
            **HYBRID | SHORT,
            **dict(attention_bias=True, tie_word_embeddings=True, linear_conv_kernel_dim=3),
            rope_parameters=dict(rope_theta=1000.0, partial_rotary_factor=0.5),
        ),
        # one key head for all memories, attention of as many key-value heads as queries, whole heads turned
        "qwen3.5-shared": lambda: tf.Qwen3_5TextConfig(
            **HYBRID | SHORT | dict(linear_num_key_heads=1, linear_value_head_dim=10, num_key_value_heads=4),
            rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=500.0, partial_rotary_factor=1.0),
        ),
    },
    # Written down from knowledge of the file, checked against copies of it on the hub; of the whole model's file this
    # is `text_config`.
    released={
        "qwen3.5-27b": """{"attention_bias": false, "attention_dropout": 0.0, "attn_output_gate": true,
        "dtype": "bfloat16", "eos_token_id": 248044, "full_attention_interval": 4, "head_dim": 256,
        "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 17408,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": 48, "linear_value_head_dim": 128, "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_5_text",
        "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": false, "num_attention_heads": 24,
        "num_hidden_layers": 64, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_parameters":
        {"mrope_interleaved": true, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
        "rope_theta": 10000000, "rope_type": "default"}, "tie_word_embeddings": false, "use_cache": true,
        "vocab_size": 248320}""",
    },
    # The sizes are those of the whole models, images included; counts of these shapes in transformers.
    parameters={
        "qwen3.5-0.8b": 752_393_024,
        "qwen3.5-2b": 1_881_825_088,
        "qwen3.5-4b": 4_205_751_296,
        "qwen3.5-9b": 8_953_803_264,
        "qwen3.5-27b": 26_895_998_464,
    },
    trims=False,
    **LOOSE,
)
