"""A training in a process of its own: what the kill tests start.

The processes are forked from a server that has imported everything, which takes milliseconds in place of seconds.
"""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch
from toy import ToyConfig, ToyLoader, ToyModel, toy_rows

from groundup.training.callbacks.callback import Callback
from groundup.training.config import TrainingConfig
from groundup.training.loop import fit
from groundup.training.objectives.language_modeling import LanguageModeling


class Events(Callback):
    """Kills, slows, or announces."""

    def __init__(self, kill_at=None, slow=0.0, announce=None):
        self.kill_at, self.slow, self.announce = kill_at, slow, announce

    def on_step(self, training, result):
        if self.announce and training.step == 3:
            Path(self.announce).write_text("here")
        if training.step >= 3:
            time.sleep(self.slow)
        if training.step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(training, model=None, rows=None, events=None):
    torch.set_num_threads(1)
    network = ToyModel(ToyConfig(**(model or {})))
    loader = ToyLoader(toy_rows(**(rows or {})), training.get("batch_size", 8))
    run = fit(network, LanguageModeling(), loader, TrainingConfig.parse(training), [Events(**(events or {}))])
    return run, network


def command(words, events=None):
    """A command line of `groundup train`, with `Events` among the callbacks of its run; the rest is as users get it."""
    from groundup.cli import main
    from groundup.commands.train import Train

    callbacks = Train._callbacks
    Train._callbacks = lambda self, *parts: [*callbacks(self, *parts), Events(**(events or {}))]
    try:
        raise SystemExit(main(words))
    finally:
        Train._callbacks = callbacks


def start(target=train, **arguments):
    """A process that runs `target`; its `exitcode` is negative when a signal killed it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_toy", "groundup.training.loop", "torch._dynamo"])
    process = context.Process(target=target, kwargs=arguments)
    process.start()
    return process


def save_forever(folder, done):
    """Save checkpoint after checkpoint; `done` holds the number of the last finished one."""
    from groundup.training.checkpoint import Checkpoints

    torch.set_num_threads(1)
    checkpoints = Checkpoints(folder, keep=1)
    latest = checkpoints.latest()
    step = int(latest.name[5:]) if latest else 0
    while True:
        step += 1
        named = {f"{i}": torch.full((20_000,), float(step)) for i in range(4)} | {"a": torch.full((100,), float(step))}
        checkpoints.save({"model": named}, {"step": step})
        Path(done + ".new").write_text(str(step))
        os.replace(done + ".new", done)


def save_with_limit(folder, limit, result):
    """Save a checkpoint where files may have at most `limit` bytes; the error's text goes to `result`."""
    import resource

    from groundup.base.errors import GroundupError
    from groundup.training.checkpoint import Checkpoints

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        Checkpoints(folder).save({"model": {"a": torch.ones(1000)}}, {"step": 20, "long": "x" * 200})
    except GroundupError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(result).write_text(str(error))
        raise SystemExit(error.exit_code) from None
