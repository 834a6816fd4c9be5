"""MAD-X on real text: a task learned in English works in Python once the language adapter is exchanged.

The two languages are the built-in corpora, as bytes; the base has read more of the first. The task is a way of writing:
lines end in a byte that neither language has. Its adapter learns on English text alone.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F

from groundup.adapters import BottleneckConfig, InvertibleConfig, adapters_of, add_adapter
from groundup.data.builtin import pystdlib
from groundup.data.builtin.stories.documents import documents
from groundup.data.builtin.stories.items import StoriesConfig
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model

NEWLINE, END = ord("\n"), 1


def corpus(documents, size=400_000):
    """(train, held out) bytes, the lines of one document after another."""
    text = "".join(d.text.replace("\n\n", "\n") + "\n" for d in documents)[: size + size // 10]
    values = torch.tensor(list(text.encode()))
    return values[:size], values[size:]


def rows(values, seed, count=16, length=64):
    starts = torch.randint(0, len(values) - length, (count,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([values[start : start + length] for start in starts])


def loss(model, x):
    return F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())


def train(model, text, steps, lr=3e-3):
    """`text(step)` gives the rows; what is not frozen learns."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    for step in range(steps):
        loss(model, text(step)).backward()
        optimizer.step(), optimizer.zero_grad(), schedule.step()


def as_task(x):
    return torch.where(x == NEWLINE, END, x)


@pytest.mark.slow
@pytest.mark.row("PEFT-16", reference="its own ablations")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_task_is_carried_into_another_language(seed):
    english, _ = corpus(documents(StoriesConfig(bytes=500_000)))
    python, python_test = corpus(itertools.islice(pystdlib.documents(), 40))
    torch.manual_seed(seed)
    sizes = dict(vocab_size=256, hidden_size=96, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4)
    model = build_model(LlamaConfig(**sizes, num_key_value_heads=4))

    def mixed(step):
        return torch.cat([rows(english, step, 12), rows(python, step, 4)])

    train(model, mixed, 400)
    for name, text in (("english", english), ("python", python)):
        add_adapter(model, InvertibleConfig(reduction_factor=4), name)
        train(model, lambda step, text=text: rows(text, step), 200)
    adapters = adapters_of(model)
    add_adapter(model, BottleneckConfig.pfeiffer(reduction_factor=4), "task")
    adapters.activate("english", "task")
    train(model, lambda step: as_task(rows(english, step)), 200)

    found = {}
    with torch.no_grad():
        x = as_task(rows(python_test, 0, 128))
        for stack in ((), ("task",), ("python",), ("english", "task"), ("python", "task")):
            with adapters.using(*stack):
                found[stack] = float(loss(model, x))
        plain = rows(python_test, 0, 128)
        for stack in ((), ("english",), ("python",)):
            with adapters.using(*stack):
                found["plain", *stack] = float(loss(model, plain))
    # Seeds 0 to 1 gave 0.11 to 0.13, 0.55 to 0.62 and 0.06 nats a byte less than the three.
    swapped = found["python", "task"]
    assert swapped < found["task",] - 0.05  # without the language
    assert swapped < found["english", "task"] - 0.05  # in the language in which the task was learned
    assert swapped < found["python",] - 0.02  # without the task
    assert found["plain", "python"] < found["plain",]
