"""Small random models of every family that llama.cpp knows, wide enough for blocks of 256."""

import gguf
import torch

from groundup.base.gguf_container import TENSOR_TYPES
from groundup.models.catalogue import config_from_hf
from groundup.models.hub import build_model
from groundup.quantization.gguf.blocks import dequantize

PACKED = ("q8_0", "q4_0", "q4_k", "q6_k")

WIDE = dict(
    hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=128
)
GROUPED = dict(WIDE, num_key_value_heads=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)

SHAPES = {
    "llama": dict(GROUPED, model_type="llama", head_dim=32),
    "llama-biased": dict(GROUPED, model_type="llama", attention_bias=True, mlp_bias=True),
    "llama-3.1": dict(GROUPED, model_type="llama", rope_parameters=dict(LLAMA3, original_max_position_embeddings=32)),
    "llama-linear": dict(
        GROUPED, model_type="llama", rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0)
    ),
    "llama-tied": dict(WIDE, model_type="llama", tie_word_embeddings=True),
    "mistral": dict(GROUPED, model_type="mistral", sliding_window=None),
    "mixtral": dict(GROUPED, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2),
    "qwen2": dict(GROUPED, model_type="qwen2", tie_word_embeddings=True),
    "qwen3": dict(GROUPED, model_type="qwen3", head_dim=32),
    "gemma": dict(GROUPED, model_type="gemma", head_dim=64),
    "gemma2": dict(GROUPED, model_type="gemma2", head_dim=64, query_pre_attn_scalar=64, sliding_window=8),
    "olmo2": dict(GROUPED, model_type="olmo2"),
    "phi3": dict(GROUPED, model_type="phi3"),
    "gpt2": dict(model_type="gpt2", n_embd=256, n_layer=3, n_head=4, n_positions=128),
}


def make(name, vocab_size=64):
    """The model, in evaluation mode, with weights away from their trivial start."""
    torch.manual_seed(0)
    model = build_model(config_from_hf(dict(SHAPES[name], vocab_size=vocab_size))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.2 if parameter.ndim == 1 else 0.05))
    return model


def logits(model, ids):
    """(T, V) float32"""
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0].float()


def numbers():
    """Rows of many sizes and signs, zeros and equal numbers among them."""
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    x[0], x[1, :300], x[2], x[3] = 0, 1.5, x[2].abs(), -x[3].abs()
    x[4], x[5] = x[4] * 1e-3, x[5] * 1e3
    return x


def theirs(kind):
    return gguf.GGMLQuantizationType(TENSOR_TYPES[kind].number)


def relative_errors(packed, kind):
    x = numbers()[1:]
    return (dequantize(packed[1:], kind) - x).norm(dim=-1) / x.norm(dim=-1)
