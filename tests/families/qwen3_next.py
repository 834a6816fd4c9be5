"""Qwen3-Next, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

HYBRID = GROUPED | dict(
    head_dim=16,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=12,
    num_hidden_layers=4,
)
EXPERTS = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12, shared_expert_intermediate_size=20)
SHORT = dict(num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"])

# The norm inside a DeltaNet divides what a memory gives by its size, and the first tokens' is next to nothing where
# query and key are at right angles: transformers' own gradients move by 3e-5 when its embedding changes by 2e-7.
LOOSE = dict(rtol=1e-4, atol=5e-5)

reference = Reference(
    cases={
        "qwen3-next": lambda: tf.Qwen3NextConfig(**HYBRID | EXPERTS),
        "qwen3-next-mixed": lambda: tf.Qwen3NextConfig(
            **HYBRID | EXPERTS | SHORT,
            **dict(mlp_only_layers=[0], norm_topk_prob=False, attention_bias=True, tie_word_embeddings=True),
            **dict(linear_conv_kernel_dim=3, rope_parameters=dict(rope_theta=1000.0, partial_rotary_factor=0.5)),
        ),
    },
    # Written down from knowledge of the file, checked against copies of it on the hub.
    released={
        "qwen3-next-80b-a3b": """{"architectures": ["Qwen3NextForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645,
        "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 5120, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128,
        "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_next",
        "moe_intermediate_size": 512, "norm_topk_prob": true, "num_attention_heads": 16, "num_experts": 512,
        "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2, "output_router_logits": false,
        "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000000,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 512, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.57.0.dev0", "use_cache": true, "vocab_size": 151936}""",
    },
    # 80B on its card; the count of this shape in transformers
    parameters={"qwen3-next-80b-a3b": 79_674_391_296},
    trims=False,
    **LOOSE,
)
