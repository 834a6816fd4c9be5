"""GPT-Neo, held against transformers."""

import transformers as tf

from families.reference import Reference

GPT_NEO = dict(
    vocab_size=64,
    hidden_size=32,
    num_layers=3,
    num_heads=4,
    max_position_embeddings=64,
    window_size=5,
    attention_types=[[["global", "local"], 1], [["global"], 1]],
)

reference = Reference(
    cases={
        "gpt-neo": lambda: tf.GPTNeoConfig(**GPT_NEO),
        "gpt-neo-local-first": lambda: tf.GPTNeoConfig(
            **GPT_NEO | dict(attention_types=[[["local"], 2], [["global"], 1]], intermediate_size=40)
        ),
    },
    # Written down from knowledge of the file, not fetched from the hub.
    released={
        "gpt-neo-1.3b": """{"activation_function": "gelu_new", "architectures": ["GPTNeoForCausalLM"],
        "attention_dropout": 0, "attention_layers": ["global", "local", "global", "local", "global", "local",
        "global", "local", "global", "local", "global", "local", "global", "local", "global", "local", "global",
        "local", "global", "local", "global", "local", "global", "local"],
        "attention_types": [[["global", "local"], 12]], "bos_token_id": 50256, "embed_dropout": 0,
        "eos_token_id": 50256, "gradient_checkpointing": false, "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": null, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 2048,
        "model_type": "gpt_neo", "num_heads": 16, "num_layers": 24, "resid_dropout": 0, "summary_activation": null,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
        "summary_use_proj": true, "tokenizer_class": "GPT2Tokenizer", "transformers_version": "4.9.0.dev0",
        "use_cache": true, "vocab_size": 50257, "window_size": 256}""",
    },
    # counts of these shapes in transformers, as the releases are known to have
    parameters={
        "gpt-neo-125m": 125_198_592,
        "gpt-neo-1.3b": 1_315_575_808,
        "gpt-neo-2.7b": 2_651_307_520,
    },
)
