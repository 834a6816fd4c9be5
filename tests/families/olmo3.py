"""Olmo 3, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

YARN = dict(rope_type="yarn", rope_theta=300.0, factor=4.0, original_max_position_embeddings=16, attention_factor=1.25)
EACH = dict(full_attention=YARN, sliding_attention=dict(rope_type="default", rope_theta=50.0))
TURNS = '"sliding_attention", "sliding_attention", "sliding_attention", "full_attention"'

reference = Reference(
    rows=("LM-47",),
    cases={
        "olmo3": lambda: tf.Olmo3Config(**LLAMA | dict(num_hidden_layers=5), pad_token_id=0, sliding_window=4),
        "olmo3-stretched": lambda: tf.Olmo3Config(
            **GROUPED,
            pad_token_id=0,
            sliding_window=5,
            rope_parameters=EACH,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            attention_bias=True,
            tie_word_embeddings=True,
        ),
    },
    # config.json of the released 7B: its numbers are those of Raschka's standalone notebook (rasbt/LLMs-from-scratch,
    # ch05/13_olmo3), which loads these files; the spelling is that of transformers 4.57.
    released={
        "olmo3-7b": f"""{{"architectures": ["Olmo3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "layer_types": [{", ".join([TURNS] * 8)}], "max_position_embeddings": 65536,
        "model_type": "olmo3", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": {{"attention_factor": 1.2079441541679836,
        "beta_fast": 32, "beta_slow": 1, "factor": 8.0, "original_max_position_embeddings": 8192,
        "rope_type": "yarn"}}, "rope_theta": 500000, "sliding_window": 4096, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.57.1", "use_cache": false, "vocab_size": 100278}}""",
    },
    # counts of the released shapes in transformers; that of the 7B is what the hub shows for it (7.3B)
    parameters={"olmo3-7b": 7_298_011_136, "olmo3-32b": 32_233_522_176},
    local_theta=None,
)
