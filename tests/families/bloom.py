"""BLOOM, held against transformers."""

import transformers as tf

from families.reference import Reference

BLOOM = dict(vocab_size=64, hidden_size=32, n_layer=3, n_head=4)

reference = Reference(
    rows=("LAY-40",),
    cases={
        "bloom": lambda: tf.BloomConfig(**BLOOM),
        "bloom-six-heads": lambda: tf.BloomConfig(**BLOOM | dict(hidden_size=48, n_head=6), tie_word_embeddings=False),
    },
    # Held against files of models derived from it, which call n_embed hidden_size and num_attention_heads n_head: the
    # same in what was shown.
    released={
        "bloom-560m": """{"apply_residual_connection_post_layernorm": false, "attention_dropout": 0.0,
        "attention_softmax_in_fp32": true, "architectures": ["BloomForCausalLM"], "bias_dropout_fusion": true,
        "bos_token_id": 1, "eos_token_id": 2, "hidden_dropout": 0.0, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": true, "model_type": "bloom", "n_embed": 1024,
        "n_inner": null, "n_layer": 24, "num_attention_heads": 16, "offset_alibi": 100, "pad_token_id": 3,
        "pretraining_tp": 1, "seq_length": 2048, "skip_bias_add": true, "skip_bias_add_qkv": false,
        "transformers_version": "4.20.0", "unk_token_id": 0, "use_cache": true, "vocab_size": 250880}""",
    },
    # Le Scao et al. 2022, table 3, and the model cards
    parameters={
        "bloom-560m": 559_214_592,
        "bloom-1b1": 1_065_314_304,
        "bloom-1b7": 1_722_408_960,
        "bloom-3b": 3_002_557_440,
        "bloom-7b1": 7_069_016_064,
        "bloom": 176_247_271_424,
    },
    takes_positions=False,
)
