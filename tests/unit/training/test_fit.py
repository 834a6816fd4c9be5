import json
import math
import threading

import pytest
import torch
from toy import ToyLoader, ToyModel, toy_rows

from groundup.base.errors import DataError, NotFiniteError, UsageError
from groundup.training.callbacks.callback import Callback
from groundup.training.callbacks.evaluate import Evaluate
from groundup.training.callbacks.report import Report
from groundup.training.callbacks.sample import Sample
from groundup.training.callbacks.tensorboard import TensorBoard
from groundup.training.config import TrainingConfig
from groundup.training.feed import Feed
from groundup.training.loop import fit
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.run import Run, read_lines
from groundup.training.spikes import LossSpikes


def settings(folder, **options):
    options = {"steps": 12, "batch_size": 6, "schedule": {"warmup_steps": 2}, "optimizer": {"lr": 0.02}, **options}
    return TrainingConfig.parse({**options, "out_dir": str(folder)})


class Poisoned(LanguageModeling):
    """The loss of chosen steps is NaN."""

    def __init__(self, bad):
        super().__init__()
        self.bad, self.calls = bad, 0

    def loss(self, outputs, batch):
        self.calls += 1
        total, weight, metrics = super().loss(outputs, batch)
        return total * (float("nan") if self.calls in self.bad else 1.0), weight, metrics


@pytest.mark.row("OPT-17", reference="property")
def test_pretraining_loop_lowers_the_held_out_loss_and_keeps_curves_and_samples(tmp_path):
    held_out = toy_rows(20, seed=9)

    def validation(model):
        assert not model.training
        logits = model(held_out["ids"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), held_out["labels"].flatten())
        return {"loss": loss.item(), "bits_per_byte": 1.0}

    reports = []
    callbacks = [
        Evaluate(validation),
        Sample(lambda model, prompts: [prompt + "!" for prompt in prompts], ["a", "b"], show=False),
        TensorBoard(),
        Report(lambda run: reports.append(run.summary()["state"])),
    ]
    config = settings(tmp_path, steps=60, evaluate_every=20, sample_every=40)
    run = fit(ToyModel(), LanguageModeling(), ToyLoader(toy_rows(200), 6), config, callbacks)
    losses = {e["step"]: e["loss"] for e in run.metrics("evaluate")}
    assert list(losses) == [0, 20, 40, 60]
    # ln 17 = 2.83 to begin with; the tokens have two equally likely successors, so ln 2 = 0.69 is the best
    assert losses[0] == pytest.approx(2.83, abs=0.4)
    assert 0.69 < losses[60] < 1.6
    assert [(s["step"], s["prompt"], s["text"]) for s in run.samples()][:2] == [(0, "a", "a!"), (0, "b", "b!")]
    assert {s["step"] for s in run.samples()} == {0, 40, 60}
    assert reports == ["finished"]
    assert list((tmp_path / "tensorboard").iterdir())
    line = run.metrics("train")[-1]
    assert {"loss", "lr", "grad_norm", "tokens_per_second", "tokens", "epoch", "trained_share"} <= line.keys()
    assert line["tokens"] == 60 * 6 * 12
    assert json.loads((tmp_path / "env.json").read_text())["seed"] == 0
    assert Run.open(tmp_path).config["steps"] == 60


@pytest.mark.row("OPT-18", reference="hand calculation")
def test_warmup_cosine_and_clipping_act_on_every_step(tmp_path):
    """The rates written are those of a linear warmup and a cosine; with clipping, a step of SGD is lr x clip long."""
    lengths, previous = [], []

    class Lengths(Callback):
        def on_start(self, training):
            self.remember(training)

        def on_step(self, training, result):
            old = previous[-1]
            self.remember(training)
            lengths.append((previous[-1] - old).norm().item())

        def remember(self, training):
            previous.append(torch.cat([p.detach().flatten().clone() for p in training.model.parameters()]))

    optimizer = {"kind": "sgd", "lr": 1.0, "momentum": 0.0}
    config = settings(tmp_path, optimizer=optimizer, clip=0.1, schedule={"warmup_steps": 4, "minimum": 0.1})
    events = fit(ToyModel(), LanguageModeling(), ToyLoader(toy_rows(), 6), config, [Lengths()]).metrics("train")
    rates = [e["lr"] for e in events]
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.55)  # half way down: 0.1 + 0.9 / 2
    assert all(e["grad_norm"] > 0.1 for e in events)
    assert lengths == pytest.approx([rate * 0.1 for rate in rates], rel=1e-3, abs=1e-7)


@pytest.mark.row("OPT-15", reference="property")
def test_a_bad_step_is_left_out_and_named(tmp_path):
    run = fit(ToyModel(), Poisoned({4}), ToyLoader(toy_rows(), 6), settings(tmp_path))
    (skipped,) = run.metrics("skip")
    assert skipped["step"] == 4
    assert skipped["loss"] == "nan"
    assert len(skipped["sources"]) == 6
    assert skipped["sources"][0].startswith("doc-")
    assert [e["step"] for e in run.metrics("train")] == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.row("OPT-15", reference="property")
def test_policy_stop_and_what_happens_after_many_bad_steps(tmp_path):
    with pytest.raises(NotFiniteError, match=r"step 4: loss nan.*doc-") as caught:
        fit(ToyModel(), Poisoned({4}), ToyLoader(toy_rows(), 6), settings(tmp_path / "a", nonfinite={"policy": "stop"}))
    assert caught.value.exit_code == 4
    patient = {"patience": 3, "then": "stop"}
    with pytest.raises(NotFiniteError, match="3 steps in a row"):
        fit(ToyModel(), Poisoned({4, 5, 6}), ToyLoader(toy_rows(), 6), settings(tmp_path / "b", nonfinite=patient))


@pytest.mark.row("OPT-15", reference="property")
def test_rollback_restores_the_checkpoint_and_goes_on_with_new_data(tmp_path):
    seen = {}

    class Watch(Callback):
        def on_log(self, training, record):
            if record["event"] in ("checkpoint", "rollback") and training.step in (4, 8):
                seen[record["event"]] = [p.detach().clone() for p in training.model.parameters()]
                seen[record["event"] + " rows"] = training.feed.data.seen

    config = settings(tmp_path, checkpoint_every=4, nonfinite={"patience": 3})
    run = fit(ToyModel(), Poisoned({6, 7, 8}), ToyLoader(toy_rows(), 6), config, [Watch()])
    assert [(e["step"], e["to"]) for e in run.metrics("rollback")] == [(8, 4)]
    assert not (tmp_path / "checkpoints/step-000008").exists()  # in the middle of the bad ones
    assert all(torch.equal(a, b) for a, b in zip(seen["checkpoint"], seen["rollback"], strict=True))
    assert seen["rollback rows"] == 8 * 6
    assert [e["step"] for e in run.metrics("train")] == [1, 2, 3, 4, 5, 9, 10, 11, 12]
    bad = set(range(6, 100))
    with pytest.raises(NotFiniteError, match="again after going back"):
        fit(
            ToyModel(),
            Poisoned(bad),
            ToyLoader(toy_rows(), 6),
            settings(tmp_path / "b", checkpoint_every=4, nonfinite={"patience": 3}),
        )


class Spiking(LanguageModeling):
    """The loss of chosen steps is a thousandfold."""

    def __init__(self, *steps):
        super().__init__()
        self.calls, self.steps = 0, steps

    def loss(self, outputs, batch):
        self.calls += 1
        total, weight, metrics = super().loss(outputs, batch)
        return total * (1000.0 if self.calls in self.steps else 1.0), weight, metrics


@pytest.mark.row("OPT-15", reference="property")
def test_a_spike_is_left_out_or_stops(tmp_path, capsys):
    def train(name, objective, **policy):
        config = settings(tmp_path / name, steps=15, nonfinite=policy)
        return fit(ToyModel(), objective, ToyLoader(toy_rows(), 6), config)

    run = train("skip", Spiking(3, 13))
    assert [e["step"] for e in run.metrics("skip")] == [13]  # three steps are too few to know a spike
    assert len(run.metrics("skip")[0]["sources"]) == 6
    assert max(e["loss"] for e in run.metrics("train")[3:]) < 10
    assert "a spike: nonfinite.spike 100 allows" in capsys.readouterr().err
    assert [e["step"] for e in train("none", Spiking(13), spike=None).metrics("skip")] == []
    with pytest.raises(NotFiniteError, match=r"step 13: loss .*a spike"):
        train("stop", Spiking(13), policy="stop")


def test_a_resumed_training_knows_a_spike_at_once(tmp_path):
    schedule = {"kind": "constant"}
    first = settings(tmp_path, steps=12, schedule=schedule)
    fit(ToyModel(), LanguageModeling(), ToyLoader(toy_rows(), 6), first)
    more = settings(tmp_path, steps=14, schedule=schedule)
    run = fit(ToyModel(), Spiking(1), ToyLoader(toy_rows(), 6), more)
    assert [e["step"] for e in run.metrics("skip")] == [13]


def test_what_counts_as_a_spike():
    spikes = LossSpikes(100)
    for loss in [3.0] * 9:
        spikes.observe(loss)
    assert spikes.limit() == math.inf
    spikes.observe(50.0)  # one outlier does not move the median
    assert spikes.limit() == 300
    for wanted, loss in ((1.0, 1e-6), (math.inf, -2.0)):
        other = LossSpikes(100)
        other.load_state_dict([loss] * 10)
        assert other.limit() == wanted
    assert LossSpikes(None).limit() == math.inf


def test_bad_data_is_reported_before_the_first_update(tmp_path):
    masked = toy_rows(6)
    masked["labels"][:] = -100
    with pytest.raises(DataError, match=r"no token of a batch is trained.*row 0 \(doc-0\)"):
        fit(ToyModel(), LanguageModeling(), [masked], settings(tmp_path / "a"))
    wrong = toy_rows(6)
    wrong["ids"][2, 3] = 17
    with pytest.raises(DataError, match=r"ids hold 17, outside the model's vocabulary of 17, in row 2 \(doc-2\)"):
        fit(ToyModel(), LanguageModeling(), [wrong], settings(tmp_path / "b"))
    with pytest.raises(DataError, match="empty"):
        fit(ToyModel(), LanguageModeling(), [], settings(tmp_path / "c"))


@pytest.mark.row("OPT-10", reference="hand calculation")
def test_the_ramp_enlarges_the_batches_of_a_training(tmp_path):
    """Rows of 12 tokens, from 1 to 6 a step over the first 300 tokens: 12 + (72 - 12) min(1, seen / 300), in rows."""
    ramp = {"start_tokens": 12, "ramp_tokens": 300}
    data = ToyLoader(toy_rows(30), 6)
    run = fit(ToyModel(), LanguageModeling(), data, settings(tmp_path, steps=25, batch_ramp=ramp))
    tokens, expected = 0, []
    while len(expected) < 25:
        tokens += 12 * max(1, int(12 + 60 * min(1, tokens / 300)) // 12)
        expected.append(tokens)
    found = [event["tokens"] for event in run.metrics("train")]
    assert found == expected
    steps = [b - a for a, b in zip([0, *found], found, strict=False)]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (12, 72)


@pytest.mark.row("OPT-24", reference="hand calculation")
def test_ends_by_tokens_epochs_and_early_stopping(tmp_path):
    def train(name, callbacks=(), **options):
        return fit(ToyModel(), LanguageModeling(), [toy_rows(30)], settings(tmp_path / name, **options), callbacks)

    assert train("tokens", steps=None, tokens=500).summary()["step"] == 7  # 72 tokens a step
    assert train("epochs", steps=None, epochs=2).summary()["step"] == 10
    rising = iter(range(100))
    run = train(
        "early",
        [Evaluate(lambda model: {"loss": float(next(rising))})],
        evaluate_every=2,
        early_stopping={"patience": 3},
    )
    assert run.summary()["state"] == "early stopping"
    assert run.summary()["step"] == 6  # evaluations at 0 (best), 2, 4, 6
    with pytest.raises(UsageError, match="give `steps`, `tokens` or `epochs`"):
        settings(tmp_path, steps=None)


def test_the_best_checkpoint_is_kept_and_the_average_is_evaluated(tmp_path):
    values = iter([9.0, 5.0, 1.0, 7.0, 8.0, 6.0, 6.0])
    weights = []

    def validation(model):
        weights.append(model.norm.weight.detach().clone())
        return {"loss": next(values)}

    config = settings(tmp_path, evaluate_every=2, checkpoint_every=2, keep=1, ema={"decay": 0.5, "warmup": False})
    model = ToyModel()
    run = fit(model, LanguageModeling(), ToyLoader(toy_rows(), 6), config, [Evaluate(validation)])
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == ["step-000004", "step-000012"]
    assert not torch.equal(weights[-1], model.norm.weight)


def test_works_in_a_thread_and_without_a_run_folder_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []

    def work():
        config = TrainingConfig(steps=2, batch_size=6)
        done.append(fit(ToyModel(), LanguageModeling(), ToyLoader(toy_rows(), 6), config))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [run.id for run in Run.list("runs")] == [done[0].id]
    assert "finished" in done[0]._repr_html_()


def test_a_torn_last_line_is_skipped_by_readers(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "event": "train"}\n{"step": 2, "ev')
    assert list(read_lines(file)) == [{"step": 1, "event": "train"}]


def test_feed_takes_what_a_step_needs_and_finds_its_place_again():
    batches = [toy_rows(5, seed=1), toy_rows(7, seed=2)]
    feed = Feed(batches)
    assert feed.width(4) == 12
    taken = [feed.take(4)["sources"] for _ in range(2)]
    assert taken == [["doc-0", "doc-1", "doc-2", "doc-3"], ["doc-4", "doc-0", "doc-1", "doc-2"]]
    place = json.loads(json.dumps(feed.state_dict()))
    expected = [feed.take(4)["ids"] for _ in range(4)]
    again = Feed(batches)
    again.load_state_dict(place)
    assert all(torch.equal(again.take(4)["ids"], ids) for ids in expected)
    assert feed.epoch == again.epoch == 1
