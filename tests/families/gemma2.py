"""Gemma 2, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

TINY = GROUPED | dict(head_dim=16, pad_token_id=0)

reference = Reference(
    cases={
        "gemma2": lambda: tf.Gemma2Config(
            **TINY, sliding_window=5, query_pre_attn_scalar=20, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
        ),
        "gemma2-uncapped": lambda: tf.Gemma2Config(
            **TINY, sliding_window=4, attn_logit_softcapping=None, final_logit_softcapping=None
        ),
    },
    # Held against a copy of the released file of 9B: the same, but for torch_dtype (bfloat16 in the copy).
    released={
        "gemma-2-9b": """{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation":
        "gelu_pytorch_tanh", "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 16, "num_hidden_layers": 42,
        "num_key_value_heads": 8, "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096, "torch_dtype": "float32",
        "transformers_version": "4.42.0.dev0", "use_cache": true, "vocab_size": 256000}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={"gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320},
)
