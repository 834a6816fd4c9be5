import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_toy import start, train

from groundup.base.errors import CheckpointError, UsageError
from groundup.training.checkpoint import Checkpoints
from groundup.training.run import Run, reproducible

BASE = {"steps": 40, "batch_size": 8, "schedule": {"warmup_steps": 5}, "optimizer": {"lr": 0.01}}
# 30 rows and 8 a step: the kill after step 18 is in the fifth epoch, that after 5 in the second, both in the middle
CASES = {
    "dropout, in the fifth epoch": ({"checkpoint_every": 17}, {"dropout": 0.2}, {}, 18),
    "accumulation, in the second epoch": ({"checkpoint_every": 5, "micro_batch_size": 3}, {}, {}, 6),
    "packed, tied, average, SGD": (
        {"checkpoint_every": 17, "ema": {"decay": 0.9}, "optimizer": {"kind": "sgd", "lr": 0.1}},
        {"tie_word_embeddings": True},
        {"packed": True},
        18,
    ),
    "ramp, activation checkpointing": (
        {
            "checkpoint_every": 17,
            "batch_ramp": {"start_tokens": 24, "ramp_tokens": 2000},
            "activation_checkpointing": True,
        },
        {"dropout": 0.1},
        {},
        19,
    ),
    "fp16 with its scale": (
        {"checkpoint_every": 17, "precision": {"dtype": "fp16", "growth_interval": 4, "initial_scale": 16.0}},
        {},
        {},
        18,
    ),
}


def assert_same_end(a: Path, b: Path):
    assert reproducible(Run(a).metrics()) == reproducible(Run(b).metrics())
    last = "checkpoints/step-000040"
    for name in ("model", "optimizer", "ema"):
        if (a / last / f"{name}.safetensors").exists():
            ours, theirs = (load_file(folder / last / f"{name}.safetensors") for folder in (a, b))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.row("OPT-19", reference="property")
@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(case, tmp_path):
    options, model, rows, kill_at = CASES[case]
    training = {**BASE, **options}
    train({**training, "out_dir": str(tmp_path / "whole")}, model, rows)
    broken = {**training, "out_dir": str(tmp_path / "broken")}
    process = start(training=broken, model=model, rows=rows, events={"kill_at": kill_at})
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert Checkpoints(tmp_path / "broken/checkpoints").latest().name == f"step-{options['checkpoint_every']:06d}"
    train(broken, model, rows)
    assert_same_end(tmp_path / "whole", tmp_path / "broken")
    assert len(Run(tmp_path / "broken").metrics("train")) == 40
    assert Run(tmp_path / "broken").summary()["state"] == "finished"


def test_same_seed_same_metrics_other_seed_other_metrics(tmp_path):
    events = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train({**BASE, "steps": 6, "seed": seed, "out_dir": str(tmp_path / name)}, {"dropout": 0.2})
        events.append(reproducible(Run(tmp_path / name).metrics()))
    assert events[0] == events[1] != events[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_one_signal_checkpoints_and_the_run_can_go_on(number, code, tmp_path):
    training = {**BASE, "out_dir": str(tmp_path / "run"), "checkpoint_every": 1000}
    train({**training, "out_dir": str(tmp_path / "whole")})
    ready = tmp_path / "ready"
    process = start(training=training, events={"announce": str(ready), "slow": 0.1})
    wait_for(ready)
    sent = time.monotonic()
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == code
    assert time.monotonic() - sent < 10
    stopped = Run(tmp_path / "run").metrics()[-1]
    assert stopped["event"] == "stop"
    assert Checkpoints(tmp_path / "run/checkpoints").load().step == stopped["step"] < 40
    train(training)
    whole, ours = (reproducible(Run(tmp_path / name).metrics("train")) for name in ("whole", "run"))
    assert whole == ours


def test_second_signal_ends_at_once(tmp_path):
    ready = tmp_path / "ready"
    training = {**BASE, "out_dir": str(tmp_path / "run"), "checkpoint_every": 1000}
    process = start(training=training, events={"announce": str(ready), "slow": 20.0})
    wait_for(ready)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == 143
    assert Checkpoints(tmp_path / "run/checkpoints").latest() is None


def wait_for(file: Path, seconds: float = 90):
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, "the process did not start"
        time.sleep(0.05)


def test_resume_refuses_another_model_and_names_the_difference(tmp_path):
    training = {**BASE, "steps": 2, "out_dir": str(tmp_path)}
    train(training)
    with pytest.raises(CheckpointError, match="hidden_size: 16 in the checkpoint, 32 now"):
        train({**training, "steps": 4}, {"hidden_size": 32})
    with pytest.raises(CheckpointError, match="optimizer: 'adamw' in the checkpoint, 'sgd' now"):
        train({**training, "steps": 4, "optimizer": {"kind": "sgd"}})


def test_resume_none_keeps_the_run_that_is_there(tmp_path):
    training = {**BASE, "steps": 2, "out_dir": str(tmp_path)}
    train(training)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds a run already"):
        train({**training, "resume": "none"})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_prolonging_and_starting_from_another_runs_checkpoint(tmp_path):
    train({**BASE, "steps": 3, "out_dir": str(tmp_path / "a")})
    train({**BASE, "steps": 5, "out_dir": str(tmp_path / "a")})
    assert [e["step"] for e in Run(tmp_path / "a").metrics("train")] == [1, 2, 3, 4, 5]
    train({**BASE, "steps": 7, "out_dir": str(tmp_path / "b"), "resume": str(tmp_path / "a")})
    assert [e["step"] for e in Run(tmp_path / "b").metrics("train")] == [6, 7]
    with pytest.raises(UsageError, match="nothing to resume from"):
        train({**BASE, "out_dir": str(tmp_path / "c"), "resume": str(tmp_path / "nowhere")})
