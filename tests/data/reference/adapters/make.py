"""Makes the numbers of this folder; see ORIGIN.md. Run it where `adapters` 1.3.0 is installed: python make.py FOLDER"""

import sys
from pathlib import Path

import adapters
import torch
from adapters import DoubleSeqBnConfig, SeqBnConfig, SeqBnInvConfig
from adapters.composition import Fuse, Stack
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

MODELS = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=32, n_embd=12, n_layer=2, n_head=2, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
    ),
}
KINDS = {
    "pfeiffer": SeqBnConfig(reduction_factor=4),
    "other": SeqBnConfig(reduction_factor=3, non_linearity="gelu"),
    "houlsby": DoubleSeqBnConfig(reduction_factor=4),
    "normed": DoubleSeqBnConfig(reduction_factor=4, ln_before=True, ln_after=True, scaling="channel"),
    "plus": SeqBnConfig(
        reduction_factor=4, scaling="learned", original_ln_after=False, residual_before_ln=False, leave_out=[0]
    ),
    "language": SeqBnInvConfig(reduction_factor=4),
}
SETUPS = {
    **{name: name for name in KINDS},
    "fused": Fuse("pfeiffer", "other"),
    "stacked": Stack("language", "pfeiffer"),
}


def main(folder: Path) -> None:
    for name, make in MODELS.items():
        torch.manual_seed(0)
        plain = make()
        disturb(plain.parameters())
        plain.save_pretrained(folder / name)
        (folder / name / "generation_config.json").unlink()
        # a model with a head of the library's own: that of transformers does not turn invertible adapters back
        model = adapters.AutoAdapterModel.from_pretrained(folder / name)
        torch.manual_seed(1)
        for kind, config in KINDS.items():
            model.add_adapter(kind, config=config)
        model.add_adapter_fusion(SETUPS["fused"])
        disturb(p for n, p in model.named_parameters() if "adapter" in n)
        for kind in KINDS:
            model.save_adapter(
                folder / name / kind, kind, with_head=False, use_safetensors=kind not in ("other", "normed")
            )
        model.save_adapter_fusion(folder / name / "fused", SETUPS["fused"], use_safetensors=True)
        save_file(values(model), folder / name / "values.safetensors")


def values(model) -> dict:
    """Logits and gradients of each setup."""
    found = {"ids": torch.randint(1, 32, (2, 7))}
    for setup, active in SETUPS.items():
        model.eval()
        model.active_adapters = active
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        logits = model(found["ids"]).logits
        targets = found["ids"][:, 1:].flatten()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets).backward()
        found[f"{setup}.logits"] = logits.detach().contiguous()
        for name, parameter in model.named_parameters():
            if "adapter" in name and parameter.grad is not None:
                found[f"{setup}.gradient.{name}"] = parameter.grad.clone()
    return found


def disturb(parameters) -> None:
    """Away from the trivial start."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter) * 0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
