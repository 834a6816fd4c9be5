"""Chapter 5 of "Build a Large Language Model (From Scratch)": pretraining on one short story, GPT-2's vocabulary."""

import math
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundup.commands.train import Train
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.text.gpt2 import GPT2
from groundup.tokenizers.hub import load_tokenizer
from groundup.training.run import Run


@pytest.fixture(scope="module")
def story(shared):
    return shared / "data" / "llms-from-scratch" / "the-verdict.txt"


@pytest.fixture(scope="module")
def tokenizer_folder(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copy(shared / "tokenizers" / "gpt2-encoder.json", folder / "vocab.json")
    shutil.copy(shared / "tokenizers" / "gpt2-vocab.bpe", folder / "merges.txt")
    return folder


def with_torchs_own_start(config):
    """The book leaves every layer as torch makes it: embeddings N(0, 1), linear layers U(-1/sqrt(d), 1/sqrt(d))."""
    torch.manual_seed(123)
    model = GPT2(config)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.reset_parameters()
    return model.eval()


def mean_loss(model, tokens):
    rows = torch.tensor(tokens[: len(tokens) - 1 - (len(tokens) - 1) % 256]).view(-1, 256)
    labels = torch.tensor(tokens[1 : 1 + rows.numel()]).view(-1, 256)
    with torch.no_grad():
        losses = [F.cross_entropy(model(x[None])[0], y) for x, y in zip(rows, labels, strict=True)]
    return torch.stack(losses).mean().item()


@pytest.mark.row("OPT-17", reference="published: LLMs-from-scratch chapter 5")
@pytest.mark.parametrize(
    ("width", "layers"), [(64, 2), pytest.param(768, 12, marks=pytest.mark.slow)], ids=["small", "124M"]
)
def test_the_loss_before_training(tokenizer_folder, story, width, layers):
    """Published: 10.9876 on the training part, 10.9811 on the validation part.

    A head row is U(-1/sqrt(d), 1/sqrt(d)) and a normalised vector has square d, so a logit has variance
    d * 1 / (3 d) = 1/3 for any width d, and the loss is  ln V + 1/6 = 10.99.
    """
    text = story.read_text(encoding="utf-8")
    tokenizer = load_tokenizer(tokenizer_folder)
    assert len(tokenizer.encode(text)) == 5145
    cut = int(0.9 * len(text))
    config = GPT2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32, tie_word_embeddings=False
    )
    model = with_torchs_own_start(config)
    assert math.log(50257) + 1 / 6 == pytest.approx(10.9915, abs=1e-3)
    # a narrow head is one draw of 64-dimensional rows for all positions: its mean square varies more
    tolerance = 0.03 if width == 768 else 0.08
    assert mean_loss(model, tokenizer.encode(text[:cut])) == pytest.approx(10.9876, abs=tolerance)
    assert mean_loss(model, tokenizer.encode(text[cut:])) == pytest.approx(10.9811, abs=tolerance)


WARMUP, PEAK, MINIMUM = 18, 4e-3, 4e-4


@pytest.fixture(scope="module")
def run(tokenizer_folder, story, tmp_path_factory):
    """The book's training with a narrower and shallower model, for time, and so a higher rate: 128 wide, 2 layers;
    batches of 2 rows of 256 tokens, ten epochs, AdamW with weight decay 0.1, and appendix D's schedule.
    """
    out = tmp_path_factory.mktemp("verdict") / "run"
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": False}
    Train.parse(
        {
            "model": {"model_type": "gpt2", **shape, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
            "tokenizer_from": str(tokenizer_folder),
            "data": {"source": str(story), "context_length": 256},
            "training": {
                **{"epochs": 10, "steps": None, "batch_size": 2, "seed": 123},
                **{"evaluate_every": 9, "sample_every": 45, "checkpoint_every": 1000},
                "optimizer": {"lr": PEAK, "weight_decay": 0.1},
                "schedule": {"kind": "cosine", "warmup_steps": WARMUP, "minimum": MINIMUM / PEAK},
                "clip": 1.0,
            },
            **{"prompts": ["Every effort moves you"], "sample_tokens": 20, "out_dir": str(out), "threads": 1},
        }
    ).run()
    return Run(out)


@pytest.mark.slow
@pytest.mark.row("OPT-17", reference="published: LLMs-from-scratch chapter 5")
@pytest.mark.row("OPT-24", reference="published: LLMs-from-scratch chapter 5")
def test_ten_epochs_learn_the_story_by_heart_and_nothing_else(run):
    """Published: in ten epochs the training loss falls below 1 while the validation loss stays near 6.3. The narrower
    model has not learned as much by heart, but the same gap opens.
    """
    training, validation = run.metrics("train"), run.metrics("evaluate")
    assert len(training) == 90  # 4,608 training tokens / (2 x 256) = 9 steps an epoch
    assert training[-1]["tokens"] == 10 * 4608
    assert validation[0]["step"] == 0
    assert validation[0]["loss"] == pytest.approx(math.log(50257), abs=0.1)
    last_epoch = sum(e["loss"] for e in training[-9:]) / 9
    best, last = min(e["loss"] for e in validation), validation[-1]["loss"]
    assert last_epoch < 4
    assert 5.7 < best < 6.8
    assert last - last_epoch > 2
    assert [s["step"] for s in run.samples()] == [0, 45, 90]
    assert all(s["prompt"] == "Every effort moves you" and s["text"] for s in run.samples())
    assert len({s["text"] for s in run.samples()}) == 3


@pytest.mark.slow
@pytest.mark.row("OPT-17", reference="property: the figure holds the numbers of metrics.jsonl")
@pytest.mark.row("OPT-07", reference="property: the figure holds the numbers of metrics.jsonl")
def test_loss_and_rate_are_plotted(run):
    from groundup.pages.run_report import curves

    charts = {chart.id: chart for chart in curves(run.metrics(), "")}
    loss = {line.name: line for line in charts["chart-loss"].lines}
    assert list(loss["training"].y) == [e["loss"] for e in run.metrics("train")]
    assert list(loss["validation"].x) == [0, *range(9, 91, 9)]
    (rates,) = charts["chart-lr"].lines
    assert list(rates.y) == pytest.approx(appendix_d(), rel=1e-6, abs=1e-9)


def appendix_d(total=90):
    """The learning rates of the book's training function, in its own words."""
    increment, rates = PEAK / WARMUP, []
    for step in range(total):
        if step < WARMUP:
            rates.append(step * increment)
        else:
            progress = (step - WARMUP) / (total - WARMUP)
            rates.append(MINIMUM + (PEAK - MINIMUM) * 0.5 * (1 + math.cos(math.pi * progress)))
    return rates


@pytest.mark.slow
@pytest.mark.row("OPT-18", reference="published: LLMs-from-scratch appendix D")
@pytest.mark.row("OPT-07", reference="published: LLMs-from-scratch appendix D")
def test_appendix_d_warms_up_anneals_and_clips(run):
    """Rates step by step; the norms before clipping are logged, and tests/unit/training measures what clipping does."""
    events = run.metrics("train")
    assert [e["lr"] for e in events] == pytest.approx(appendix_d(), rel=1e-6, abs=1e-9)
    assert all(math.isfinite(e["grad_norm"]) for e in events)
    assert max(e["grad_norm"] for e in events) > 1  # so clipping acted


def test_epochs_end_a_training_on_real_data(tmp_path):
    """`epochs` alone, with the loader that commands use: 3 passes over the rows of a small file."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n\n" * 60)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    summary = Train.parse({
        "model": {"model_type": "gpt2", **shape}, "tokenizer": {"kind": "characters"},
        "data": {"source": str(tmp_path / "text.txt"), "context_length": 16},
        "training": {"epochs": 3, "steps": None, "batch_size": 8, "schedule": {"warmup_steps": 2}},
        "prompts": [], "out_dir": str(tmp_path / "run"), "threads": 1,
    }).run()  # fmt: skip
    rows = (int(0.9 * 60 * 24) - 1) // 16
    assert summary["step"] == math.ceil(3 * rows / 8)
