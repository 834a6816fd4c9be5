"""The decoding benchmark runs, on toys, and refuses to compare what differs."""

import json

import pytest

from groundup.base.errors import GroundupError, UsageError
from groundup.benchmarks import generate as module
from groundup.benchmarks.generate import Work, check_ids, comparisons, peer_variants
from groundup.benchmarks.workers import Worker
from groundup.commands.bench import BenchGenerate, BenchTrain
from groundup.models.configs.llama import LlamaConfig

TOY = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=192, num_hidden_layers=1, num_attention_heads=1)


class Answers:
    def __init__(self, ids):
        self.ids = ids

    def ask(self, prompts=None, new=1, memory=False):
        return 10e9 if prompts is None else {"seconds": new / 4, "ids": self.ids}


@pytest.mark.slow
def test_command_on_a_toy(tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(module, "peer_variants", lambda compiled: ["float32 dynamic"])
    path = tmp_path / "generate.json"
    size = {"prompt": 3, "new": 4, "layers": 1, "width": 64, "vocab": 300}
    command = BenchGenerate(rows=[1, 2], rounds=1, compiled=False, threads=1, clock="processor", out=path, **size)
    results = command.run()["results"]
    assert json.loads(path.read_text())["results"] == results
    assert [one["case"] for one in results] == [
        f"{rows} rows, {dtype} weights" for rows in (1, 2) for dtype in ("bfloat16", "float32")
    ]
    assert all(one["ours"] > 0 and one["theirs"] > 0 and one["bandwidth"] > 1e6 for one in results)
    # q, k, v, o of 64 x 64, three matrices of 64 x 192, and a head of 300 x 64; no embedding
    assert results[1]["bytes_per_token"] == 4 * (4 * 64**2 + 3 * 64 * 192 + 300 * 64)
    assert "measured here" in (shown := capsys.readouterr().out)
    assert "peak memory: ours bfloat16 " in shown
    assert all(size > 1e6 for size in results[0]["peak_memory"].values())


def test_figures():
    work = Work(TOY, 3, 5)
    workers = {name: Answers([[1]]) for name in [*module.OURS, "transformers float32 dynamic"]}
    measured = {name: [module.tokens_per_second(worker, work, 2)] for name, worker in workers.items()}
    assert measured["ours float32"] == [8.0]  # 2 rows x 4 tokens in (5 - 1) / 4 s
    wide, narrow = comparisons(work, 1, measured | {"bandwidth": [1e9]})[::-1]
    assert wide.more["fraction_of_bandwidth"] == pytest.approx(8 * 4 * 72_448 / 1e9)
    assert narrow.more["bytes_per_token"] * 2 == wide.more["bytes_per_token"]
    assert (wide.met, comparisons(work, 16, measured | {"bandwidth": [1e9]})[0].met) == (False, False)


def test_other_ids_are_an_error_but_not_those_of_bfloat16_arithmetic():
    workers = {"ours bfloat16": Answers([[1]]), "transformers bfloat16 static": Answers([[2]])}
    check_ids(workers, Work(TOY, 3, 4), 1)
    with pytest.raises(GroundupError, match="transformers float32 dynamic and ours bfloat16 decode different ids"):
        check_ids(workers | {"transformers float32 dynamic": Answers([[2]])}, Work(TOY, 3, 4), 1)


def test_variants_and_settings():
    assert "float32 compiled" in peer_variants(True)
    assert len(peer_variants(False)) == 4
    with pytest.raises(UsageError, match="threads=1"):
        BenchGenerate.parse({"clock": "processor"})
    for command in (BenchGenerate, BenchTrain):
        with pytest.raises(UsageError, match="does not see the time of a GPU"):
            command.parse({"clock": "processor", "threads": 1, "device": "cuda"})


def test_a_device_that_is_not_there_is_named_before_anything_runs():
    for command in (BenchGenerate(device="cudaa"), BenchTrain(device="cudaa")):
        with pytest.raises(UsageError, match="Did you mean `cuda`"):
            command.measure()


def test_on_a_gpu_bfloat16_weights_are_multiplied_in_bfloat16():
    workers = {"ours float32": Answers([[1]]), "ours bfloat16": Answers([[2]])}
    check_ids(workers, Work(TOY, 3, 4, device="cuda"), 1)
    with pytest.raises(GroundupError, match="decode different ids"):
        check_ids(workers, Work(TOY, 3, 4), 1)


def test_a_worker_that_ends_is_an_error():
    worker = Worker("groundup.benchmarks.generate_worker", "neither", ".", "1", "wall", "cpu")
    with worker, pytest.raises(GroundupError, match="ended with status 1"):
        worker.ask(new=1)
