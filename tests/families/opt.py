"""OPT, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import LLAMA

OPT = {name: value for name, value in LLAMA.items() if name != "intermediate_size"} | dict(
    ffn_dim=48, dropout=0.0, pad_token_id=0
)

reference = Reference(
    cases={
        "opt": lambda: tf.OPTConfig(**OPT),
        "opt-350m-like": lambda: tf.OPTConfig(**OPT, do_layer_norm_before=False, word_embed_proj_dim=16),
        "opt-narrow-with-norm": lambda: tf.OPTConfig(**OPT, word_embed_proj_dim=16, tie_word_embeddings=False),
        "opt-without-biases": lambda: tf.OPTConfig(
            **OPT, enable_bias=False, layer_norm_elementwise_affine=False, _remove_final_layer_norm=True
        ),
    },
    # Held against the released file as quoted in a script: the same in what was shown (up to vocab_size), but
    # for _remove_final_layer_norm, which came later.
    released={
        "opt-350m": """{"_name_or_path": "opt-350m", "_remove_final_layer_norm": false, "activation_dropout": 0.0,
        "activation_function": "relu", "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 2, "do_layer_norm_before": false, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 4096,
        "hidden_size": 1024, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
        "model_type": "opt", "num_attention_heads": 16, "num_hidden_layers": 24, "pad_token_id": 1,
        "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.20.0.dev0", "use_cache": true,
        "vocab_size": 50272, "word_embed_proj_dim": 512}""",
    },
    # counts of these shapes in transformers; Zhang et al. 2022, table 1, names them by their rounded size
    parameters={
        "opt-125m": 125_239_296,
        "opt-350m": 331_196_416,
        "opt-1.3b": 1_315_758_080,
        "opt-2.7b": 2_651_596_800,
        "opt-6.7b": 6_658_473_984,
        "opt-13b": 12_853_473_280,
        "opt-30b": 29_974_540_288,
        "opt-66b": 65_719_701_504,
        "opt-175b": 174_604_468_224,
    },
)
