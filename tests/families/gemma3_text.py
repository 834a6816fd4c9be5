"""The text model of Gemma 3, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

TINY = GROUPED | dict(head_dim=16, pad_token_id=0)
ROPE = dict(
    full_attention=dict(rope_type="linear", rope_theta=1000.0, factor=4.0),
    sliding_attention=dict(rope_type="default", rope_theta=50.0),
)

reference = Reference(
    rows=("LM-47",),
    cases={
        "gemma3": lambda: tf.Gemma3TextConfig(**TINY | dict(num_hidden_layers=7), sliding_window=4),
        "gemma3-turns": lambda: tf.Gemma3TextConfig(
            **TINY,
            sliding_window=5,
            query_pre_attn_scalar=20,
            rope_parameters=ROPE,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            final_logit_softcapping=3.0,
        ),
    },
    # Held against a copy of the file of 1B, instruction-tuned: the same.
    released={
        "gemma-3-1b": """{"architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
        "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152, "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": true, "vocab_size": 262144}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "gemma-3-270m": 268_098_176,
        "gemma-3-1b": 999_885_952,
        "gemma-3-4b-text": 3_880_263_168,
        "gemma-3-12b-text": 11_766_034_176,
        "gemma-3-27b-text": 27_009_346_304,
    },
)
