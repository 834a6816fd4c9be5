"""GPT-NeoX, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import LLAMA

reference = Reference(
    cases={
        "gpt-neox": lambda: tf.GPTNeoXConfig(**LLAMA),
        "gpt-neox-sequential": lambda: tf.GPTNeoXConfig(
            **LLAMA,
            use_parallel_residual=False,
            attention_bias=False,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5),
        ),
        "gpt-neox-linear": lambda: tf.GPTNeoXConfig(
            **LLAMA, rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0, partial_rotary_factor=0.5)
        ),
    },
    # Written down from knowledge of the files, not fetched from the hub.
    released={
        "pythia-160m": """{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0,
        "hidden_act": "gelu", "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 12,
        "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
        "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": true, "use_parallel_residual": true,
        "vocab_size": 50304}""",
    },
    # Biderman et al. 2023, table 1 and the model cards, total parameters; 20B: 20,554,567,680 in Black et al. 2022 has
    # no vocabulary padded to 50432 in the head, counted here as released
    parameters={
        "gpt-neox-20b": 20_554_567_680,
        "pythia-14m": 14_067_712,
        "pythia-70m": 70_426_624,
        "pythia-160m": 162_322_944,
        "pythia-410m": 405_334_016,
        "pythia-1b": 1_011_781_632,
        "pythia-1.4b": 1_414_647_808,
        "pythia-2.8b": 2_775_208_960,
        "pythia-6.9b": 6_857_302_016,
        "pythia-12b": 11_846_072_320,
    },
    older={"partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"},
)
