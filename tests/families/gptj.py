"""GPT-J, held against transformers."""

import transformers as tf

from families.gpt2 import GPT2
from families.reference import Reference

reference = Reference(
    rows=("LM-46",),
    cases={
        "gptj": lambda: tf.GPTJConfig(**GPT2, rotary_dim=4),
        "gptj-whole-heads": lambda: tf.GPTJConfig(**GPT2, rotary_dim=8, n_inner=40),
    },
    # Held against a copy of the released file: the same, but for a rope_scaling that the copy adds.
    released={
        "gpt-j-6b": """{"activation_function": "gelu_new", "architectures": ["GPTJForCausalLM"], "attn_pdrop": 0.0,
        "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256, "gradient_checkpointing": false,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gptj", "n_embd": 4096, "n_head": 16,
        "n_inner": null, "n_layer": 28, "n_positions": 2048, "resid_pdrop": 0.0, "rotary": true, "rotary_dim": 64,
        "scale_attn_weights": true, "summary_activation": null, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
        "tie_word_embeddings": false, "tokenizer_class": "GPT2Tokenizer", "transformers_version": "4.18.0.dev0",
        "use_cache": true, "vocab_size": 50400}""",
    },
    # what the released tensors of this shape hold; the model card's 6,053,381,344 counts 610 x 4096 more
    parameters={"gpt-j-6b": 6_050_882_784},
)
