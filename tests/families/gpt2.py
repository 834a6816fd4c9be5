"""GPT-2, held against transformers."""

import transformers as tf

from families.reference import Reference

GPT2 = dict(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)

reference = Reference(
    rows=("LM-10", "LAY-37"),
    cases={
        "gpt2": lambda: tf.GPT2Config(**GPT2),
        "gpt2-untied": lambda: tf.GPT2Config(**GPT2, tie_word_embeddings=False, n_inner=40),
    },
    # Radford et al. 2019 as 124M, 355M, 774M, 1.5B; exact counts of the released checkpoints
    parameters={
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    },
)
