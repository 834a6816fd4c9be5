"""OLMo 2, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

reference = Reference(
    cases={
        "olmo2": lambda: tf.Olmo2Config(**LLAMA, pad_token_id=0),
        "olmo2-grouped": lambda: tf.Olmo2Config(
            **GROUPED, pad_token_id=0, attention_bias=True, tie_word_embeddings=True
        ),
    },
    # Held against a copy of the released file: it leaves out ids, dropout and attention_bias, has use_cache true, and
    # is the same in all else.
    released={
        "olmo2-7b": """{"architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "olmo2",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 100277,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false,
        "torch_dtype": "float32", "transformers_version": "4.47.0.dev0", "use_cache": false, "vocab_size": 100352}""",
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={
        "olmo2-1b": 1_484_916_736,
        "olmo2-7b": 7_298_617_344,
        "olmo2-13b": 13_716_198_400,
        "olmo2-32b": 32_234_279_936,
    },
)
