"""What must hold on a GPU: the same numbers as on the CPU, and training in bf16. Run by `make gpu`."""

import pytest
import torch
from torch.testing import assert_close

from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CONFIGS = [
    GPT2Config(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64),
    LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["gpt2", "llama"])
def test_logits_and_steps_equal_the_cpu(config):
    torch.manual_seed(0)
    model, ids = build_model(config).eval(), torch.randint(0, 64, (2, 16))
    documents = (torch.arange(16) >= 4).long().expand(2, -1)
    with torch.no_grad():
        expected, padded = model(ids), model(ids, documents=documents)[:, 4:]
        model.cuda()
        state = model.make_state(2, 16)
        steps = [model(ids[:, t : t + 1].cuda(), state=state) for t in range(16)]
        assert_close(model(ids.cuda()).cpu(), expected, atol=1e-4, rtol=1e-4)
        assert_close(model(ids.cuda(), documents=documents.cuda())[:, 4:].cpu(), padded, atol=1e-4, rtol=1e-4)
        assert_close(torch.cat(steps, 1).cpu(), expected, atol=1e-4, rtol=1e-4)


def test_bf16_training_lowers_the_loss_as_fp32_does(tmp_path):
    from groundup.commands.train import Train
    from groundup.data.config import DataConfig
    from groundup.tokenizers.registry import ByteBPEConfig
    from groundup.training.config import TrainingConfig

    losses = {}
    for dtype in ("fp32", "bf16"):
        recipe = Train(
            tokenizer=ByteBPEConfig(vocab_size=512),
            data=DataConfig(source=["stories"], limit=200, context_length=64),
            training=TrainingConfig(steps=60, batch_size=16, out_dir=tmp_path / dtype),
            dtype=dtype,
            device="cuda",
            prompts=[],
        )
        recipe.run()
        lines = [line for line in (tmp_path / dtype / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
        losses[dtype] = float(lines[-1].split('"loss": ')[1].split(",")[0])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
