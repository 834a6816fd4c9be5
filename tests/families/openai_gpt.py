"""GPT-1, held against transformers."""

import transformers as tf

from families.gpt2 import GPT2
from families.reference import Reference

reference = Reference(
    model_type="openai-gpt",
    cases={
        "openai-gpt": lambda: tf.OpenAIGPTConfig(**GPT2),
        "openai-gpt-relu": lambda: tf.OpenAIGPTConfig(**GPT2, afn="relu", tie_word_embeddings=False),
    },
    # Written down from knowledge of the file, not fetched from the hub.
    released={
        "openai-gpt": """{"afn": "gelu", "architectures": ["OpenAIGPTLMHeadModel"], "attn_pdrop": 0.1,
        "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "openai-gpt",
        "n_ctx": 512, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 512, "n_special": 0,
        "predict_special_tokens": true, "resid_pdrop": 0.1, "summary_activation": null,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
        "summary_use_proj": true, "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
        "vocab_size": 40478}""",
    },
    # Radford et al. 2018 as 117M in later papers; the released checkpoint's count
    parameters={"openai-gpt": 116_534_784},
)
