"""`groundup bench train` on toy models: who takes part, equal work, and what is written."""

import json

import pytest
import torch

from groundup.base.errors import UsageError
from groundup.benchmarks import train
from groundup.benchmarks.train import Settings, measure, variants
from groundup.benchmarks.train_cases import CASES, Tokens
from groundup.benchmarks.trainers import make_trainer
from groundup.commands.bench import BenchTrain


def test_labels_are_the_next_ids_and_seeds_decide():
    case = CASES["toy"]
    batch, again, other = (Tokens(case, seed).batch() for seed in (0, 0, 1))
    assert batch["ids"].shape == batch["labels"].shape == (case.batch, case.context)
    assert torch.equal(batch["ids"][:, 1:], batch["labels"][:, :-1])
    assert torch.equal(batch["ids"], again["ids"])
    assert not torch.equal(batch["ids"], other["ids"])
    assert 0 <= int(batch["ids"].min()) <= int(batch["labels"].max()) < case.vocabulary


def test_half_of_the_tokens_follow_from_the_one_before():
    tokens = Tokens(CASES["B"], seed=3)
    batch = tokens.batch()
    followed = (tokens.followers[batch["ids"]] == batch["labels"]).float().mean()
    assert 0.47 < float(followed) < 0.6  # and now and then by chance


@pytest.mark.parametrize("name", ["toy", "toy-llama"])
def test_our_step_and_a_plain_loop_around_transformers_do_the_same_work(name):
    pytest.importorskip("transformers")
    case, losses = CASES[name], {}
    for who in ("groundup", "transformers"):
        trainer, tokens = make_trainer(case, who, "fp32", seed=0), Tokens(case, seed=0)
        losses[who] = [trainer.update(tokens.batch()) for _ in range(20)]
    assert losses["groundup"] == pytest.approx(losses["transformers"], rel=1e-5)
    assert losses["groundup"][-1] != losses["groundup"][0]


def test_who_takes_part():
    def names(**settings):
        return [" ".join(one) for one in variants(CASES["A"], Settings([], 1, 0, **settings), settings["bf16"])]

    assert names(bf16=False, compile=False) == ["groundup fp32", "transformers fp32"]
    assert "transformers bf16+compile" in names(bf16=True)
    assert names(bf16=False, variants=["fp32+plain"]) == ["groundup fp32+plain"]


def test_unknown_configurations_and_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match="no configuration `Q`"):
        measure(Settings(["Q"], 1, 0))
    with pytest.raises(UsageError, match=r"model\.py"):
        make_trainer(CASES["toy"], "nanogpt", "fp32", 0, tmp_path)


def test_a_variant_that_fails_is_left_out_and_named(capsys):
    with train.Trainee(CASES["toy"], "groundup", "fp32", Settings([], 1, 0, threads=0)) as trainee:
        assert not train.starts(trainee)
    assert "groundup fp32: " in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    pytest.importorskip("transformers")
    path = tmp_path / "train.json"
    command = BenchTrain(
        configs=["toy"],
        rounds=1,
        seconds=0,
        threads=1,
        compile=False,
        bf16=False,
        losses=12,
        seeds=2,
        out=path,
        device="cpu",
    )
    (found,) = command.run()["results"]
    assert json.loads(path.read_text())["results"] == [found]
    assert (found["peer"], found["unit"], found["variant"]) == ("transformers", "tokens/s", "fp32")
    assert found["ratio"] == pytest.approx(found["ours"] / found["theirs"])
    assert found["losses"]["groundup fp32"] == pytest.approx(found["losses"]["transformers fp32"], rel=1e-5)
    assert 0 < found["share_of_peak"]["groundup fp32"] < 1
    assert found["device"] == "cpu"
    assert all(size > 1e6 for size in found["peak_memory"].values())
    assert "of GEMM peak" in (shown := capsys.readouterr().out)
    assert "peak memory" in shown


@pytest.mark.parametrize("who", ["groundup", "transformers"])
def test_a_trainer_computes_on_the_device_it_is_given(who):
    """The meta device stands for a GPU: everything arrives there, and only reading the loss fails."""
    pytest.importorskip("transformers")
    trainer = make_trainer(CASES["toy"], who, "fp32", 0, device="meta")
    model = trainer.step.model if who == "groundup" else trainer.model
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.cuda
@pytest.mark.parametrize("who", ["groundup", "transformers"])
@pytest.mark.parametrize("variant", ["fp32", "bf16"])
def test_cuda_trains_to_the_same_loss(who, variant):
    found = []
    for device in ("cpu", "cuda"):
        trainer, tokens = make_trainer(CASES["B"], who, variant, 0, device=device), Tokens(CASES["B"], 0)
        found.append([trainer.update(tokens.batch()) for _ in range(3)])
    assert found[0] == pytest.approx(found[1], rel=2e-2)  # bf16 keeps three digits
