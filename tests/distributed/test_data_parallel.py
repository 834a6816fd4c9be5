"""Two gloo processes against one: the same losses and weights, resuming across numbers of ranks, a rank that dies."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/training"))

from toy import ToyLoader, toy_rows

from groundup.training.run import Run
from groundup.training.step import micro_batches

SETTINGS = {"steps": 8, "batch_size": 6, "optimizer": {"lr": 0.01}, "schedule": {"warmup_steps": 2}, "timeout": 20.0}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def rank_main(rank, size, port, training, kill_rank, result, bad_rank=None):
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    from toy import ToyLoader, ToyModel, toy_rows

    from groundup.base.errors import GroundupError
    from groundup.training.config import TrainingConfig
    from groundup.training.loop import fit
    from groundup.training.objectives.language_modeling import LanguageModeling

    torch.set_num_threads(1)

    class Dying(LanguageModeling):
        calls = 0

        def prepare(self, batch):
            self.calls += 1
            if rank == kill_rank and self.calls == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return batch

        def loss(self, outputs, batch):
            total, weight, metrics = super().loss(outputs, batch)
            return total * (float("nan") if rank == bad_rank and self.calls == 4 else 1.0), weight, metrics

    model = ToyModel(seed=rank)  # different on each rank: the first one's is what counts
    try:
        fit(model, Dying(), ToyLoader(toy_rows(packed=True), 6), TrainingConfig.parse(training))
    except GroundupError as error:
        Path(result).write_text(str(error))
        os._exit(error.exit_code)  # without waiting for the dead rank
    if size > 1:
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, f"{result}.safetensors")


def launch(size, training, folder, kill_rank=None, bad_rank=None):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_toy", "groundup.training.loop", "torch._dynamo"])
    port = free_port()
    results = [str(folder / f"result-{rank}") for rank in range(size)]
    processes = [
        context.Process(target=rank_main, args=(rank, size, port, training, kill_rank, results[rank], bad_rank))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes], results


def curve(folder):
    return [(e["step"], e["loss"], e["grad_norm"], e["tokens"]) for e in Run(folder).metrics("train")]


def assert_close_runs(a, b):
    torch.testing.assert_close(torch.tensor(curve(a)), torch.tensor(curve(b)), rtol=1e-5, atol=1e-6)
    ours, theirs = (load_file(Path(f) / "checkpoints/step-000008/model.safetensors") for f in (a, b))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.row("OPT-09", reference="property")
def test_two_ranks_equal_one_and_resume_goes_1_2_1(tmp_path):
    one, two, changing = (tmp_path / name for name in ("one", "two", "changing"))
    assert launch(1, {**SETTINGS, "out_dir": str(one)}, tmp_path)[0] == [0]
    codes, results = launch(2, {**SETTINGS, "out_dir": str(two)}, tmp_path)
    assert codes == [0, 0]
    assert_close_runs(one, two)
    first, second = (load_file(f"{result}.safetensors") for result in results)
    assert all(torch.equal(first[name], second[name]) for name in first)  # ranks stay equal bit for bit
    # The schedule spans `steps`: a constant rate, so that a run whose end is moved on has the same ones.
    constant = {**SETTINGS, "schedule": {"kind": "constant", "warmup_steps": 2}}
    assert launch(1, {**constant, "out_dir": str(tmp_path / "straight")}, tmp_path)[0] == [0]
    assert launch(1, {**constant, "steps": 3, "out_dir": str(changing)}, tmp_path)[0] == [0]
    assert launch(2, {**constant, "steps": 6, "out_dir": str(changing)}, tmp_path)[0] == [0, 0]
    assert launch(1, {**constant, "out_dir": str(changing)}, tmp_path)[0] == [0]
    assert_close_runs(tmp_path / "straight", changing)


def test_a_rank_that_dies_ends_the_others(tmp_path):
    begin = time.monotonic()
    codes, results = launch(2, {**SETTINGS, "out_dir": str(tmp_path / "run")}, tmp_path, kill_rank=1)
    assert codes == [1, -signal.SIGKILL]
    assert "rank 0 of 2 lost contact" in Path(results[0]).read_text()
    assert time.monotonic() - begin < 60


@pytest.mark.row("OPT-15", reference="property")
def test_a_bad_step_names_the_documents_of_every_rank(tmp_path):
    """The NaN comes from rank 1, whose documents the first rank, which writes, does not hold."""
    assert launch(2, {**SETTINGS, "out_dir": str(tmp_path / "run")}, tmp_path, bad_rank=1)[0] == [0, 0]
    (skipped,) = Run(tmp_path / "run").metrics("skip")
    assert skipped["step"] == 4
    loader = ToyLoader(toy_rows(packed=True), 6)
    batches = [next(loader)["sources"] for _ in range(4)]
    assert sorted(skipped["sources"]) == sorted(set(batches[3]))
    assert len(skipped["sources"]) == 6


def test_shares_cover_the_batch_and_keep_groups_together():
    from toy import toy_rows

    from groundup.training.distributed import Workers, buckets

    batch = toy_rows(12)
    parts = [Workers(torch.device("cpu"), rank, 3).share(batch, together=2) for rank in range(3)]
    assert sorted(name for part in parts for name in part["sources"]) == sorted(batch["sources"])
    assert parts[1]["sources"] == ["doc-2", "doc-3", "doc-8", "doc-9"]
    assert torch.equal(parts[1]["ids"], batch["ids"][[2, 3, 8, 9]])
    assert [len(p["ids"]) for p in micro_batches(parts[1], 2, 2)] == [2, 2]
    tensors = [torch.zeros(3), torch.zeros(4), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2**25), torch.zeros(5)]
    assert [[t.numel() for t in bucket] for bucket in buckets(tensors)] == [[3, 4], [2], [2**25], [5]]
