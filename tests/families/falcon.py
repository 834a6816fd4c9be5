"""Falcon, held against transformers."""

import transformers as tf

from families.reference import Reference

FALCON = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64)
RW = dict(alibi=True, bias=True, multi_query=False, parallel_attn=False)
GROUPED = dict(new_decoder_architecture=True, num_kv_heads=2)

reference = Reference(
    rows=("LM-29", "LAY-23"),
    cases={
        "falcon-7b-like": lambda: tf.FalconConfig(**FALCON),
        "falcon-rw-like": lambda: tf.FalconConfig(**FALCON | dict(hidden_size=48, num_attention_heads=6), **RW),
        "falcon-40b-like": lambda: tf.FalconConfig(**FALCON, **GROUPED),
        "falcon-2-like": lambda: tf.FalconConfig(
            **FALCON,
            **GROUPED,
            num_ln_in_parallel_attn=1,
            ffn_hidden_size=40,
            tie_word_embeddings=False,
            rope_parameters=dict(rope_type="default", rope_theta=500_042.0),
        ),
        "falcon-rotary-in-turn": lambda: tf.FalconConfig(**FALCON, parallel_attn=False, multi_query=False, bias=True),
    },
    # Written down from knowledge of the files, not fetched from the hub.
    released={
        "falcon-7b": """{"alibi": false, "apply_residual_connection_post_layernorm": false,
        "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": false, "bos_token_id": 11,
        "eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 4544, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "falcon", "multi_query": true, "new_decoder_architecture": false,
        "num_attention_heads": 71, "num_hidden_layers": 32, "parallel_attn": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.27.4", "use_cache": true, "vocab_size": 65024}""",
        "falcon-40b": """{"alibi": false, "apply_residual_connection_post_layernorm": false,
        "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": false, "bos_token_id": 11,
        "eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 8192, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "falcon", "new_decoder_architecture": true,
        "num_attention_heads": 128, "num_hidden_layers": 60, "num_kv_heads": 8, "parallel_attn": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.27.4", "use_cache": true, "vocab_size": 65024}""",
    },
    # Almazrouei et al. 2023 as 1B, 7B, 40B, 180B; Malartic et al. 2024 as 11B: counts of the shapes in transformers
    parameters={
        "falcon-rw-1b": 1_311_625_216,
        "falcon-7b": 6_921_720_704,
        "falcon-40b": 41_303_293_952,
        "falcon-180b": 178_557_088_768,
        "falcon-2-11b": 11_102_822_400,
    },
)
