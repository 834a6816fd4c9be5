"""Mamba, held against transformers."""

from typing import Any

import transformers as tf

from families.reference import Reference

MAMBA: dict[str, Any] = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, state_size=4)

reference = Reference(
    rows=("LM-46",),
    cases={
        "mamba": lambda: tf.MambaConfig(**MAMBA),
        # use_bias is in test_mamba.py: there transformers lets padding reach the convolution
        "mamba-other-sizes": lambda: tf.MambaConfig(
            **MAMBA, use_conv_bias=False, conv_kernel=3, expand=1, time_step_rank=5, tie_word_embeddings=False
        ),
    },
    # Written down from knowledge of the file, not fetched from the hub.
    released={
        "mamba-130m": """{"architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536,
        "d_model": 768, "eos_token_id": 0, "expand": 2, "fused_add_norm": true, "hidden_act": "silu",
        "hidden_size": 768, "initializer_range": 0.1, "intermediate_size": 1536, "layer_norm_epsilon": 1e-05,
        "model_type": "mamba", "n_layer": 24, "num_hidden_layers": 24, "pad_token_id": 0,
        "pad_vocab_size_multiple": 8, "rescale_prenorm_residual": false, "residual_in_fp32": true, "rms_norm": true,
        "ssm_cfg": {}, "state_size": 16, "time_step_floor": 0.0001, "time_step_init_scheme": "random",
        "time_step_max": 0.1, "time_step_min": 0.001, "time_step_rank": 48, "time_step_scale": 1.0,
        "torch_dtype": "float32", "transformers_version": "4.39.0.dev0", "use_bias": false, "use_cache": true,
        "use_conv_bias": true, "vocab_size": 50280}""",
    },
    # counts of these shapes in transformers, as the releases are known to have
    parameters={
        "mamba-130m": 129_135_360,
        "mamba-370m": 371_516_416,
        "mamba-790m": 793_204_224,
        "mamba-1.4b": 1_372_178_432,
        "mamba-2.8b": 2_768_345_600,
    },
    takes_positions=False,
    trims=False,
)
