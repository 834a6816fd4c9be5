"""Mamba-2, held against transformers."""

from typing import Any

import transformers as tf

from families.reference import Reference

MAMBA2: dict[str, Any] = dict(
    vocab_size=64, hidden_size=32, num_hidden_layers=3, num_heads=8, head_dim=8, state_size=4, n_groups=2
)
RELEASED = """{"architectures": ["Mamba2ForCausalLM"], "bos_token_id": 0, "chunk_size": 256, "conv_kernel": 4,
"eos_token_id": 2, "expand": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.1,
"layer_norm_epsilon": 1e-05, "model_type": "mamba2", "n_groups": 8, "norm_before_gate": true, "num_heads": 128,
"num_hidden_layers": 64, "pad_token_id": 1, "rescale_prenorm_residual": false, "residual_in_fp32": true,
"rms_norm": true, "state_size": 128, "tie_word_embeddings": false, "time_step_floor": 0.0001,
"time_step_limit": [0.0, Infinity], "time_step_max": 0.1, "time_step_min": 0.001, "time_step_rank": 256,
"torch_dtype": "bfloat16", "transformers_version": "4.44.0.dev0", "use_bias": false, "use_cache": true,
"use_conv_bias": true, "vocab_size": 32768}"""

reference = Reference(
    cases={
        "mamba2": lambda: tf.Mamba2Config(**MAMBA2, chunk_size=4),
        # use_bias is in test_mamba.py: there transformers lets padding reach the convolution
        "mamba2-other-sizes": lambda: tf.Mamba2Config(
            **{**MAMBA2, "num_heads": 4, "n_groups": 1},
            expand=1,
            conv_kernel=3,
            use_conv_bias=False,
            time_step_limit=(0.4, 0.9),
            tie_word_embeddings=True,
        ),
        "mamba2-groups": lambda: tf.Mamba2Config(**{**MAMBA2, "n_groups": 8}, layer_norm_epsilon=1e-3),
    },
    # Written down from knowledge of the file, not fetched from the hub.
    released={"codestral-mamba-7b": RELEASED},
    # 7B as Mistral AI published it; the others are counts of these shapes in transformers
    parameters={
        "mamba2-130m": 128_989_632,
        "mamba2-370m": 368_346_624,
        "mamba2-780m": 780_161_280,
        "mamba2-1.3b": 1_343_757_312,
        "mamba2-2.7b": 2_702_599_680,
        "codestral-mamba-7b": 7_285_403_648,
    },
    takes_positions=False,
    trims=False,
)
