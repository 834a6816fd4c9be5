"""Memory of adapters and quantized bases: the estimate against what a training step really holds."""

import pytest
import torch

from groundup.adapters import LoRAConfig, add_adapter
from groundup.cli import main
from groundup.estimates.adapted import count_adapted, tensor_bytes
from groundup.estimates.memory import inference_memory, training_memory
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.quantization import Int8Config, quantize

LLAMA = LlamaConfig(
    vocab_size=97, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
GPT2 = GPT2Config(
    vocab_size=97, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64,
    embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
)  # fmt: skip
CASES = {
    "lora": (LoRAConfig(rank=4), None),
    "lora on q": (LoRAConfig(rank=4, targets=["q_proj"]), None),
    "qlora": (LoRAConfig(rank=4), Int8Config()),
}


def saved_bytes(model, ids):
    """What the forward pass of the blocks keeps for the backward pass."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(ids, head=lambda hidden, head: hidden)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.row("QNT-02", reference="measured: a training step's tensors")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_estimate_equals_weights_gradients_state_and_kept_activations(config, case):
    adapter, quantization = CASES[case]
    model, ids = build_model(config), torch.arange(48)[None] % 97
    full = saved_bytes(model, ids)
    if quantization:
        quantize(model, quantization)
    base = tensor_bytes(model)
    adapters = add_adapter(model, adapter)
    estimate = training_memory(config, batch=1, seq_len=48, dtype="fp32", adapter=adapter, quantization=quantization)
    learning = [p for p in model.parameters() if p.requires_grad]
    model(ids).sum().backward()
    assert estimate.weights == base
    assert estimate.adapter == estimate.gradients == sum(p.grad.nbytes for p in learning)
    assert estimate.optimizer == 2 * estimate.gradients
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    # what attention keeps of keys and values that need no gradient depends on its kernel, another one on meta
    plain = training_memory(config, batch=1, seq_len=48, dtype="fp32")
    measured, told = saved_bytes(model, ids) - full, estimate.activations - plain.activations
    assert abs(measured - told) < 0.1 * full
    adapters.remove("default")


def test_offloaded_state_is_counted_on_the_host():
    here = training_memory(LLAMA, dtype="bf16", adapter=LoRAConfig())
    away = training_memory(LLAMA, dtype="bf16", adapter=LoRAConfig(), offload=True)
    assert here.masters + here.optimizer == away.host > 0
    assert away.total == here.total - away.host


def test_inference_with_a_quantized_base():
    plain = inference_memory(LLAMA, dtype="fp32")
    small = inference_memory(LLAMA, dtype="fp32", quantization=Int8Config())
    model = build_model(LLAMA)
    quantize(model, Int8Config())
    assert small.weights == tensor_bytes(model) < plain.weights
    assert small.kv_cache == plain.kv_cache


def test_what_was_counted():
    counted = count_adapted(LLAMA, LoRAConfig(rank=4, targets=["q_proj"]), None, "fp32")
    assert counted.added == counted.learning == 3 * 4 * (64 + 64)
    assert counted.weights == 4 * counted.base


def test_the_command_tells_each_combination(capsys):
    lora = ["--adapter.kind", "lora", "--adapter.rank", "16"]
    assert main(["estimate", "memory", "gpt2", "--seq-len", "512", *lora, "--offload"]) == 0
    assert "on the host" in capsys.readouterr().out
    assert main(["estimate", "memory", "gpt2", "--quantization.kind", "int8"]) == 2
    assert "name what does with --adapter.kind" in capsys.readouterr().err
    assert main(["estimate", "memory", "gpt2", "--dtype", "int8", *lora]) == 2
    assert "told by --quantization.kind" in capsys.readouterr().err
