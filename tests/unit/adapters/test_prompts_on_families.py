"""Prompts and prefixes on every family: one pass over one row alone is what all else must equal."""

import pytest
import torch
from torch.testing import assert_close

from families import CASES
from families.tiny import ids, make_ours
from groundup.adapters import PrefixConfig, PromptConfig, PTuningV2Config, adapters_of, add_adapter
from groundup.base.errors import UsageError

NO_VECTORS = ("ngram",)
PARTS = ("t5", "kerple_log", "shaw", "transformer_xl", "dual_chunk", "performer", "strided", "alternating")
QUICK = {id(reference): name for name, reference in reversed(CASES.items())}.values()  # one of each family
PARAMETERS = [
    pytest.param(
        name, marks=[] if name in QUICK or name.startswith(tuple(f"parts-{p}" for p in PARTS)) else pytest.mark.slow
    )
    for name in CASES
    if not name.startswith(NO_VECTORS)
]
PACKING = [case for case in PARAMETERS if CASES[str(case.values[0])].packs]
LENGTHS = (8, 6, 3, 5, 7)


def with_adapters(model):
    """The names of prompts and prefixes that fit the model, of different lengths; None is the base."""
    names = []
    for name, config in {
        "a": PromptConfig(length=3),
        "b": PromptConfig(length=2, init="random"),
        "p": PrefixConfig(length=3, hidden=8),
        "q": PTuningV2Config(length=2),
    }.items():
        try:
            add_adapter(model, config, name)
        except UsageError as refused:
            if type(model).__name__ not in str(refused):
                raise
            continue
        names.append(name)
    return names


@pytest.fixture(params=PARAMETERS, scope="module")
def case(request, tmp_path_factory):
    """(a tiny model with adapters, their names, its reference)"""
    model, reference = make_ours(request.param, tmp_path_factory.mktemp("family")), CASES[request.param]
    names = with_adapters(model)
    if "core" not in {name.rpartition(".")[2] for name, _ in model.named_modules()}:
        assert not {"p", "q"} & {*names}
    assert {"a", "b"} <= {*names}
    return model, names, reference


def test_counts_of_words_have_neither_vectors_nor_attention_and_refuse_both(tmp_path):
    model = make_ours(next(name for name in CASES if name.startswith(NO_VECTORS)), tmp_path)
    assert not with_adapters(model)
    assert model.prompt is None


@pytest.mark.row("PEFT-17", reference="each row alone")
@pytest.mark.row("PEFT-06", reference="each row alone")
@pytest.mark.row("PEFT-08", reference="each row alone")
@pytest.mark.row("PEFT-09", reference="each row alone")
def test_different_ones_for_each_row_with_padding_chunks_and_steps_equal_each_row_alone(case):
    model, names, reference = case
    adapters = adapters_of(model)
    chosen = [*names, None]
    x = ids(rows=len(chosen), length=10)
    documents = torch.stack([(torch.arange(8) >= 8 - n).long() for n in LENGTHS[: len(chosen)]])
    with torch.no_grad(), adapters.for_rows(chosen):
        state = model.make_state(len(chosen), 10)
        whole = model(x[:, :8], documents=documents)
        parts = [model(x[:, a : a + 4], documents=documents[:, a : a + 4], state=state) for a in (0, 4)]
        steps = [model(x[:, t : t + 1], state=state) for t in (8, 9)]
    for row, name in enumerate(chosen):
        n = LENGTHS[row]
        with torch.no_grad(), adapters.using(*[name] * (name is not None)):
            alone = model(x[row : row + 1, 8 - n :])[0]
        assert_close(whole[row, -n:], alone[:n], **reference.tolerance, msg=lambda m, name=name: f"{name}: {m}")
        assert_close(torch.cat((*parts, *steps), 1)[row, -n - 2 :], alone, **reference.tolerance)


@pytest.mark.row("PEFT-06", reference="each row alone")
@pytest.mark.row("PEFT-09", reference="each row alone")
@pytest.mark.parametrize("case", PACKING, indirect=True, scope="module")  # others take one document a row
def test_each_packed_document_has_its_own_prompt_and_gradients_are_those_of_documents_alone(case):
    model, names, reference = case
    x = ids(rows=1)
    documents = torch.tensor([[1] * 5 + [2] * 4 + [0] * 3])
    weight = torch.randn(1, 9, model.config.vocab_size, generator=torch.Generator().manual_seed(0))
    adapters = adapters_of(model)
    for names_now in ([names[0]], [names[-1]], ["b", names[0], names[-1]]):
        adapters.activate(*dict.fromkeys(names_now))
        adapters.train_only(*dict.fromkeys(names_now))
        learned = [p for p in model.parameters() if p.requires_grad]
        packed = model(x, documents=documents)[:, :9]
        apart = torch.cat((model(x[:, :5]), model(x[:, 5:9])), dim=1)
        assert_close(packed, apart, **reference.tolerance)
        one, other = (torch.autograd.grad((y * weight).mean(), learned) for y in (packed, apart))
        assert sum(a.abs().sum() for a in one) > 0  # Bengio's window may not reach the first of two prompts
        for a, b in zip(one, other, strict=True):
            assert a.isfinite().all()
            assert_close(a, b, **reference.tolerance)
