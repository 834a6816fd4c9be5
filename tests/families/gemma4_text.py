"""The text model of Gemma 4, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

TINY = GROUPED | dict(head_dim=8, global_head_dim=16, pad_token_id=0, sliding_window=4, vocab_size_per_layer_input=64)
TURNS = ["sliding_attention", "full_attention"]
ROPE = dict(
    full_attention=dict(rope_type="proportional", rope_theta=300.0, partial_rotary_factor=0.5),
    sliding_attention=dict(rope_type="default", rope_theta=50.0),
)

reference = Reference(
    rows=("LM-47",),
    cases={
        # E2B: second vectors, borrowed keys of both kinds, wider MLPs where keys are borrowed
        "gemma4-e": lambda: tf.Gemma4TextConfig(
            **TINY | dict(num_hidden_layers=6),
            layer_types=TURNS * 3,
            hidden_size_per_layer_input=6,
            num_kv_shared_layers=3,
            use_double_wide_mlp=True,
            final_logit_softcapping=3.0,
            rms_norm_eps=0.1,  # without it gradients of six layers with unscaled scores are lost in rounding
        ),
        # 31B: keys as values, other heads where all is seen
        "gemma4-dense": lambda: tf.Gemma4TextConfig(
            **TINY,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            hidden_size_per_layer_input=0,
            attention_k_eq_v=True,
            num_global_key_value_heads=1,
            rope_parameters=ROPE,
        ),
        # 26B-A4B
        "gemma4-moe": lambda: tf.Gemma4TextConfig(
            **TINY,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            hidden_size_per_layer_input=0,
            attention_k_eq_v=True,
            num_global_key_value_heads=1,
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=24,
        ),
    },
    # 26B-A4B: the text_config of google/gemma-4-26B-A4B-it as a test of the repository vmlx-swift has it word for word;
    # E2B: that of a test of mistral.rs; rope_parameters and activation are those that transformers takes by default.
    # Both agree with google-deepmind/gemma, gm/nn/gemma4/_gemma4.py.
    released={
        "gemma-4-26b-a4b-text": f"""{{"model_type": "gemma4_text", "hidden_size": 2816, "num_hidden_layers": 30,
        "intermediate_size": 2112, "num_attention_heads": 16, "head_dim": 256, "global_head_dim": 512,
        "num_key_value_heads": 8, "num_global_key_value_heads": 2, "num_kv_shared_layers": 0,
        "layer_types": [{", ".join([*['"sliding_attention"'] * 5, '"full_attention"'] * 5)}], "sliding_window": 1024,
        "attention_k_eq_v": true, "enable_moe_block": true, "num_experts": 128, "top_k_experts": 8,
        "moe_intermediate_size": 704, "final_logit_softcapping": 30.0, "hidden_size_per_layer_input": 0,
        "use_double_wide_mlp": false, "use_bidirectional_attention": "vision", "tie_word_embeddings": true,
        "max_position_embeddings": 262144, "vocab_size": 262144, "vocab_size_per_layer_input": 262144,
        "rms_norm_eps": 1e-6}}""",
        "gemma-4-e2b-text": f"""{{"model_type": "gemma4_text", "hidden_size": 1536, "num_hidden_layers": 35,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512,
        "num_global_key_value_heads": null, "attention_k_eq_v": false, "sliding_window": 512, "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 20,
        "use_double_wide_mlp": true, "intermediate_size": 6144, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": 30.0,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
        "layer_types": [{", ".join([*['"sliding_attention"'] * 4, '"full_attention"'] * 7)}]}}""",
    },
    # counts of these shapes in transformers; 31B and 26B-A4B are published as 30.7B and 25.2B
    parameters={
        "gemma-4-e2b-text": 4_628_569_344,
        "gemma-4-e4b-text": 7_463_013_376,
        "gemma-4-12b-text": 11_907_350_272,
        "gemma-4-26b-a4b-text": 25_233_141_760,
        "gemma-4-31b-text": 30_697_345_280,
    },
    local_theta=None,
)
