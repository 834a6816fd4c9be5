"""How every family behaves, held against itself: one pass over the whole text is what all else must equal."""

import pytest
import torch
from torch.testing import assert_close

from families import CASES
from families.tiny import ids, make_ours
from groundup.base.errors import UsageError
from groundup.models.hub import load_model
from groundup.training.kernels.install import accelerated


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """(a tiny model, its reference)"""
    return make_ours(request.param, tmp_path), CASES[request.param]


def test_prefill_in_chunks_then_steps_equal_one_pass(case):
    ours, reference = case
    x, state = ids(), ours.make_state(batch=2, max_len=12)
    with torch.no_grad():
        parts = [ours(x[:, :4], state=state), ours(x[:, 4:7], state=state)]
        parts += [ours(x[:, t : t + 1], state=state) for t in range(7, 12)]
        assert_close(torch.cat(parts, dim=1), ours(x), **reference.tolerance)
    assert state.lengths.tolist() == [12, 12]


def test_left_padded_rows_equal_each_row_alone(case):
    ours, reference = case
    x, lengths = ids(rows=3), (12, 7, 3)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state = ours.make_state(3, 20)
    with torch.no_grad():
        plain, prefilled = ours(x, documents=documents), ours(x, documents=documents, state=state)
        step = ids(rows=3, length=1, seed=2)
        stepped = ours(step, state=state)
        for row, n in enumerate(lengths):
            alone = ours(torch.cat((x[row : row + 1, -n:], step[row : row + 1]), dim=1))[0]
            assert_close(plain[row, -n:], alone[:n], **reference.tolerance)
            assert_close(prefilled[row, -n:], alone[:n], **reference.tolerance)
            assert_close(stepped[row], alone[-1:], **reference.tolerance)
    assert state.lengths.tolist() == [13, 8, 4]


def test_left_padding_may_cover_whole_chunks_of_a_prefill(case):
    ours, reference = case
    x, lengths = ids(rows=2), (12, 2)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state = ours.make_state(2, 12)
    with torch.no_grad():
        parts = [ours(x[:, a : a + 4], documents=documents[:, a : a + 4], state=state) for a in (0, 4, 8)]
        for row, n in enumerate(lengths):
            assert_close(torch.cat(parts, 1)[row, -n:], ours(x[row : row + 1, -n:])[0], **reference.tolerance)


def test_packed_documents_do_not_touch_each_other(case):
    ours, reference = case
    x = ids(rows=1)
    documents = torch.tensor([[1] * 5 + [2] * 4 + [0] * 3])
    if not reference.packs:
        with pytest.raises(UsageError, match="one document a row"):
            ours(x, documents=documents)
        return
    with torch.no_grad():
        packed = ours(x, documents=documents)
        assert_close(packed[:, :5], ours(x[:, :5]), **reference.tolerance)
        assert_close(packed[:, 5:9], ours(x[:, 5:9]), **reference.tolerance)


def test_no_token_sees_what_comes_after_it(case):
    ours, reference = case
    x = ids()
    with torch.no_grad():
        changed = x.clone()
        changed[:, 8:] = (changed[:, 8:] + 7) % 64
        assert_close(ours(changed)[:, :8], ours(x)[:, :8], **reference.tolerance)


@pytest.mark.parametrize("interleave", [False, True])
def test_a_state_is_selected_from_and_returns_to_a_snapshot(case, interleave):
    ours, reference = case
    x, state = ids(rows=3), ours.make_state(3, 16, spare=2)  # tokens that a window must keep to forget as many
    with torch.no_grad():
        ours(x[:, :6], state=state)
        before = state.snapshot()
        ours(x[:, 6:9], state=state)
        if reference.trims:
            state.trim(2)
            assert state.lengths.tolist() == [7, 7, 7]
        else:
            with pytest.raises(UsageError):
                state.trim(2)
        rows = torch.tensor([2, 0] if interleave else [0, 1, 1])
        state.restore(before)
        state.select(rows)
        out = ours(x[rows, 6:8], state=state)
        assert_close(out, ours(x[rows, :8])[:, 6:], **reference.tolerance)
    assert state.nbytes > 0


def test_saved_and_loaded_it_is_the_same(case, tmp_path):
    ours, _ = case
    ours.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert again.config.to_hf() | {"dtype": ""} == ours.config.to_hf() | {"dtype": ""}
    assert set(again.state_dict()) == set(ours.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_training_kernels_give_the_same_gradients(case):
    ours, reference = case
    x = ids()

    def gradients():
        loss = torch.nn.functional.cross_entropy(ours(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        return torch.autograd.grad(loss, list(ours.parameters()))

    plain = gradients()
    with accelerated(ours):
        faster = gradients()
    for (name, _), found, wanted in zip(ours.named_parameters(), faster, plain, strict=True):
        assert_close(found, wanted, msg=lambda m, name=name: f"{name}: {m}", **reference.tolerance)


def test_ten_steps_lower_the_loss(case):
    """A new model of the family learns one batch by heart; one that counts has its own tests of learning."""
    ours, reference = case
    if reference.make is not None:
        assert type(ours).Config.counted
        return
    torch.manual_seed(0)
    model = type(ours).build(ours.config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, losses = ids(), []
    for _ in range(10):
        logits = model(x)[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
