"""Phi-1, Phi-1.5 and Phi-2, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

reference = Reference(
    rows=("LM-46",),
    cases={
        "phi": lambda: tf.PhiConfig(**LLAMA),
        "phi-with-norms": lambda: tf.PhiConfig(
            **GROUPED,
            qk_layernorm=True,
            rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.25),
        ),
    },
    # Held against the released file as quoted in a script: the same.
    released={
        "phi-2": """{"_name_or_path": "microsoft/phi-2", "architectures": ["PhiForCausalLM"],
        "attention_dropout": 0.0, "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256,
        "hidden_act": "gelu_new", "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 10240,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": false,
        "resid_pdrop": 0.1, "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "torch_dtype": "float16", "transformers_version": "4.37.0", "use_cache": true, "vocab_size": 51200}""",
    },
    # as the model cards: 1.3B, 1.3B, 2.7B; counts of these shapes in transformers
    parameters={"phi-1": 1_418_270_720, "phi-2": 2_779_683_840},
    same_parameters=("phi-1.5",),
)
