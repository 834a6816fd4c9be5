"""Hyper-parameter search over real trainings."""

import json

import pytest
from train_toy import train

from groundup.training.config import TrainingConfig
from groundup.training.run import Run
from groundup.training.search import GridSearch, SuccessiveHalving, search

RATES = [1e-6, 1e-2, 30.0]  # learns nothing, learns, diverges


def last_loss(config, folder):
    """The mean training loss of the last ten steps."""
    run, _ = train({**config.model_dump(mode="json"), "out_dir": str(folder)})
    losses = [event["loss"] for event in Run(run.path).metrics("train")][-10:]
    return sum(losses) / len(losses)


@pytest.mark.row("OPT-20", reference="property: the best of trainings run without the search")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_grid_of_trainings_finds_the_learning_rate_that_learns(tmp_path, seed):
    base = TrainingConfig(steps=40, batch_size=8, seed=seed, schedule={"warmup_steps": 5}, nonfinite={"spike": None})
    alone = {}
    for rate in RATES:
        config = TrainingConfig.parse({**base.model_dump(), "optimizer": {"lr": rate}})
        alone[rate] = last_loss(config, tmp_path / f"alone-{rate}")

    def evaluate(config, budget):
        return last_loss(config, tmp_path / f"trial-{config.optimizer.lr}")

    best = search(base, GridSearch(space={"optimizer.lr": RATES}), evaluate, tmp_path / "search.jsonl")
    assert best.settings == {"optimizer.lr": min(alone, key=alone.get)} == {"optimizer.lr": 1e-2}
    rows = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert {row["settings"]["optimizer.lr"]: row["score"] for row in rows} == alone
    assert alone[1e-2] < 0.8 * alone[1e-6]


@pytest.mark.row("OPT-20", reference="property: a budget is the length of a training")
def test_halving_trains_the_best_longer(tmp_path):
    base = TrainingConfig(steps=1, batch_size=8, schedule={"kind": "constant"})
    trained = []

    def evaluate(config, budget):
        config = config.model_copy(update={"steps": int(budget)})
        trained.append((config.optimizer.lr, config.steps))
        return last_loss(config, tmp_path / f"{config.optimizer.lr}-{config.steps}")

    how = SuccessiveHalving(space={"optimizer.lr": [1e-6, 1e-2]}, trials=4, budget=12, eta=2, seed=1)
    best = search(base, how, evaluate, tmp_path / "search.jsonl")
    assert best.settings == {"optimizer.lr": 1e-2}
    assert best.budget == 48
    assert (1e-2, 48) in trained
    assert all(rate == 1e-2 for rate, steps in trained if steps == 48)
