"""Cohere 2, the architecture of Command R7B and Tiny Aya, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED, LLAMA

reference = Reference(
    rows=("LM-47",),
    cases={
        "cohere2": lambda: tf.Cohere2Config(**LLAMA | dict(num_hidden_layers=5), sliding_window=4, logit_scale=1.5),
        "cohere2-turns": lambda: tf.Cohere2Config(
            **GROUPED,
            sliding_window=5,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            rope_parameters=dict(rope_type="linear", rope_theta=300.0, factor=4.0),
            attention_bias=True,
            logit_scale=2.5,
            layer_norm_eps=0.1,
            tie_word_embeddings=False,
        ),
    },
    # Command R7B: config.json as its copies on the hub have it (huihui-ai/c4ai-command-r7b-12-2024-abliterated).
    # Tiny Aya: the numbers of Raschka's standalone notebook (rasbt/LLMs-from-scratch, ch05/15_tiny-aya), which loads
    # the released files and is tested there against Cohere2ForCausalLM.
    released={
        "command-r7b": """{"architectures": ["Cohere2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 5, "cache_implementation": "hybrid", "eos_token_id": 255001, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25, "max_position_embeddings": 8192,
        "model_type": "cohere2", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "order_of_interleaved_layers": "local_attn_first", "pad_token_id": 0,
        "position_embedding_type": "rope_gptj", "rope_scaling": null, "rope_theta": 50000, "rotary_pct": 1.0,
        "sliding_window": 4096, "sliding_window_pattern": 4, "torch_dtype": "bfloat16",
        "transformers_version": "4.48.0.dev0", "use_cache": true, "use_embedding_sharing": true,
        "use_gated_activation": true, "use_parallel_block": true, "use_parallel_embedding": true,
        "vocab_size": 256000}""",
        "tiny-aya": """{"architectures": ["Cohere2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 2, "eos_token_id": 3, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 11008, "layer_norm_eps": 1e-05, "logit_scale": 1.0, "max_position_embeddings": 500000,
        "model_type": "cohere2", "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4,
        "pad_token_id": 0, "rope_parameters": {"rope_theta": 50000, "rope_type": "default"},
        "sliding_window": 4096, "tie_word_embeddings": true, "vocab_size": 262144}""",
    },
    # counts of the released shapes in transformers; Tiny Aya's is also what the notebook named above prints
    parameters={"command-r7b": 8_028_033_024, "tiny-aya": 3_349_227_520},
)
