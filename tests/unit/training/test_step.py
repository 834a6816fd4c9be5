import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close
from toy import ToyConfig, ToyModel, toy_rows

from groundup.training.activation_checkpointing import checkpointed
from groundup.training.distributed import Workers
from groundup.training.feed import take_rows
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.optimizers.config import AdamWConfig, SGDConfig
from groundup.training.precision import PrecisionConfig
from groundup.training.step import Step, clip_factor, micro_batches


def make_step(model, **options):
    options.setdefault("optimizer", SGDConfig(lr=0.5, momentum=0.0, weight_decay=0.0))
    optimizer = options.pop("optimizer").build(model.named_parameters())
    precision = options.pop("precision", PrecisionConfig())
    objective = options.pop("objective", LanguageModeling())
    return Step(model, model, objective, optimizer, precision, Workers(torch.device("cpu")), **options)


def weights_after(batch, micro):
    model = ToyModel()
    result = make_step(model, micro_batch_size=micro)(batch)
    return result, [p.detach().clone() for p in model.parameters()]


@pytest.mark.row("OPT-09", reference="property")
@settings(max_examples=20, deadline=None)
@given(micro=st.integers(1, 9), seed=st.integers(0, 1000), masked=st.integers(0, 7))
def test_any_split_gives_the_same_loss_and_gradient(micro, seed, masked):
    """Rows with very different numbers of trained tokens: averaging micro-batch means would be visibly wrong."""
    batch = toy_rows(9, packed=True, seed=seed)
    batch["labels"][:masked, 2:] = -100
    whole, expected = weights_after(batch, None)
    split, ours = weights_after(batch, micro)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert split.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
    assert split.weight == whole.weight
    for a, b in zip(ours, expected, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.row("OPT-09", reference="torch.nn.functional.cross_entropy")
def test_accumulated_gradient_is_that_of_the_mean_over_all_tokens():
    batch = toy_rows(6, packed=True)
    reference = ToyModel()
    logits = reference(batch["ids"], documents=batch["documents"])
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    loss.backward()
    model = ToyModel()
    before = [p.detach().clone() for p in model.parameters()]
    result = make_step(model, micro_batch_size=2)(batch)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    for old, new, other in zip(before, model.parameters(), reference.parameters(), strict=True):
        assert_close(new, old - 0.5 * other.grad, rtol=1e-5, atol=1e-6)


def test_objective_whose_weight_is_not_the_number_of_labels():
    """A weight of one per row: the gradient is that of the mean over rows, however it is split."""

    class PerRow(LanguageModeling):
        def loss(self, outputs, batch):
            total, _, metrics = super().loss(outputs, batch)
            return total, torch.tensor(len(batch["ids"])), metrics

    results = []
    for micro in (None, 4):
        model = ToyModel()
        results.append((make_step(model, micro_batch_size=micro, objective=PerRow())(toy_rows(8)), model))
    (a, first), (b, second) = results
    assert a.weight == b.weight == 8
    assert a.loss == pytest.approx(b.loss, rel=1e-6)
    reference = ToyModel()
    rows = toy_rows(8)
    loss = F.cross_entropy(reference(rows["ids"]).flatten(0, 1), rows["labels"].flatten(), reduction="sum") / 8
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert a.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_groups_of_rows_are_never_broken():
    sizes = [len(part["ids"]) for part in micro_batches(toy_rows(12), 5, together=2)]
    assert sizes == [4, 4, 4]


def test_clipping_scales_the_update():
    batch, limit = toy_rows(4), 0.05
    model = ToyModel()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    result = make_step(model, clip=limit)(batch)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert result.grad_norm > limit
    assert (before - after).norm().item() == pytest.approx(0.5 * limit, rel=1e-4)
    assert clip_factor(0.01, limit) == clip_factor(math.nan, limit) == clip_factor(1.0, None) == 1.0


@pytest.mark.row("OPT-15", reference="property")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("where", ["weight", "gradient", "loss"])
def test_a_step_that_is_not_finite_changes_nothing(dtype, where):
    model = ToyModel()
    step = make_step(model, optimizer=AdamWConfig(), precision=PrecisionConfig(dtype=dtype))
    step(toy_rows(4))
    if where == "weight":
        original = model.blocks["0"].up.bias.data[0].item()
        model.blocks["0"].up.bias.data[0] = math.inf if dtype == "fp16" else math.nan
    if where == "gradient":
        handle = model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    if where == "loss":
        head = step.objective.loss
        step.objective.loss = lambda outputs, batch: (head(outputs, batch)[0] * math.nan, *head(outputs, batch)[1:])
    if where == "weight" and dtype == "fp16":
        model.blocks["0"].down.weight.data[0, 0] = math.nan
    before = {k: v.clone() for k, v in step.optimizer.state_tensors().items()}
    weights = [p.detach().clone() for p in model.parameters()]
    result = step(toy_rows(4, seed=1))
    assert not result.applied
    for key, value in step.optimizer.state_tensors().items():
        assert_close(value, before[key], rtol=0, atol=0)
    for old, new in zip(weights, model.parameters(), strict=True):
        assert_close(old, new.detach(), rtol=0, atol=0, equal_nan=True)
    if dtype == "fp16":
        assert step.scaler.scale < PrecisionConfig().initial_scale
    if where == "gradient":
        handle.remove()
        assert step(toy_rows(4, seed=2)).applied
    if where == "weight":
        assert original is not None


class _SavedBytes:
    """What the forward pass keeps for the backward pass, without parameters."""

    def __init__(self, model):
        self.own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.storages = {}

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    def _pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def total(self):
        return sum(self.storages.values())


@pytest.mark.row("OPT-14", reference="property")
def test_activation_checkpointing_same_gradients_less_memory():
    config, batch = ToyConfig(num_hidden_layers=6, dropout=0.2), toy_rows(8)
    gradients, saved = [], []
    for active in (False, True):
        model = ToyModel(config)
        torch.manual_seed(5)  # the same dropout
        with checkpointed(model, active), _SavedBytes(model) as kept:
            loss = F.cross_entropy(model(batch["ids"]).flatten(0, 1), batch["labels"].flatten())
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        saved.append(kept.total)
        assert "forward" not in vars(model.blocks["0"])  # the model is as it was
    for plain, recomputed in zip(*gradients, strict=True):
        assert_close(plain, recomputed, rtol=0, atol=0)
    assert saved[1] < saved[0] / 3  # inputs of six blocks against everything inside them; the head is the same


def test_memory_shortage_halves_the_micro_batch():
    model = ToyModel()
    forward = model.forward

    def small_memory(ids, **options):
        if len(ids) > 3:
            raise torch.OutOfMemoryError("pretended")
        return forward(ids, **options)

    expected, weights = weights_after(toy_rows(8), None)
    step = make_step(model)
    step.forward = small_memory
    result = step(toy_rows(8))
    assert step.micro_batch_size == 2
    assert result.loss == pytest.approx(expected.loss, rel=1e-5)
    for a, b in zip(model.parameters(), weights, strict=True):
        assert_close(a.detach(), b, rtol=1e-4, atol=1e-6)
    assert len(take_rows(toy_rows(8), 0, 3)["sources"]) == 3
