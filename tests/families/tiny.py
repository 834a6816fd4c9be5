"""Tiny models of every family, with weights away from their trivial start."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from families import CASES
from families.reference import Reference
from groundup.models.catalogue import model_class
from groundup.models.hub import load_model


class Pair(NamedTuple):
    """The same weights in transformers and here."""

    theirs: Any
    ours: Any
    folder: Path
    reference: Reference


def ids(rows=2, length=12, seed=1):
    """Random ids, none of them 0. (rows, length) int64"""
    return torch.randint(1, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


def make_pair(name: str, folder: Path) -> Pair:
    """A case of a family that transformers knows; ours is read from the files that theirs wrote."""
    import transformers as tf

    reference = CASES[name]
    torch.manual_seed(0)
    theirs = tf.AutoModelForCausalLM.from_config(reference.cases[name](), dtype=torch.float32).eval()
    _disturb(theirs)
    theirs.save_pretrained(folder / "theirs")
    return Pair(theirs, load_model(folder / "theirs"), folder, reference)


def make_ours(name: str, folder: Path) -> Any:
    """Any case, ours alone."""
    reference = CASES[name]
    if name in reference.cases:
        return make_pair(name, folder).ours
    config = reference.own[name]()
    if reference.make is not None:
        return reference.make(config)
    torch.manual_seed(0)
    model = model_class(config).build(config).eval()
    _disturb(model)
    return model


def with_rows(names, reference_of, source):
    """Parameters that carry the rows of their families."""
    return [
        pytest.param(name, marks=[pytest.mark.row(row, reference=source) for row in reference_of[name].rows])
        for name in names
    ]


def randomised(model: Any, seed: int = 0) -> Any:
    """A model in evaluation mode whose norms and biases are away from their trivial start."""
    torch.manual_seed(seed)
    _disturb(model)
    return model.eval()


def _disturb(model: torch.nn.Module) -> None:
    """Norms and biases leave their trivial start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "gate.correction", "layer_scalar")):
                buffer.add_(torch.randn_like(buffer) * 0.1)
