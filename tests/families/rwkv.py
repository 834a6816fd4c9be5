"""RWKV-4, held against transformers, where it is called `rwkv`."""

import transformers as tf

from families.reference import Reference

# use_cache: the state that transformers keeps otherwise is changed in place, which breaks its gradients, and is as wide
# as the model, not as time mixing.
TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, context_length=64, use_cache=False)

reference = Reference(
    cases={
        "rwkv": lambda: tf.RwkvConfig(**TINY),
        "rwkv-wide": lambda: tf.RwkvConfig(**TINY, attention_hidden_size=48, intermediate_size=40),
        "rwkv-tied": lambda: tf.RwkvConfig(**TINY, tie_word_embeddings=True),
    },
    # Written down from knowledge of the files, not fetched from the hub.
    released={
        "rwkv-4-pile-169m": """{"architectures": ["RwkvForCausalLM"], "attention_hidden_size": 768, "bos_token_id": 0,
        "context_length": 1024, "eos_token_id": 0, "hidden_size": 768, "intermediate_size": 3072,
        "layer_norm_epsilon": 1e-05, "model_type": "rwkv", "num_hidden_layers": 12, "rescale_every": 6,
        "tie_word_embeddings": false, "torch_dtype": "float32", "transformers_version": "4.29.0.dev0",
        "use_cache": true, "vocab_size": 50277}""",
    },
    # Peng et al. 2023, table 2: 169M, 430M, 1.5B, 3B (2.985e9), 7B (7.393e9), 14B (1.415e10)
    parameters={
        "rwkv-4-pile-169m": 169_342_464,
        "rwkv-4-pile-430m": 430_397_440,
        "rwkv-4-pile-1b5": 1_515_106_304,
        "rwkv-4-pile-3b": 2_984_627_200,
        "rwkv-4-pile-7b": 7_392_649_216,
        "rwkv-4-pile-14b": 14_148_597_760,
    },
    trims=False,
    masks=False,
)
