"""The one training loop: pre-training, fine-tuning and alignment differ in objective and data alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from groundup.training.callbacks.callback import Callback
from groundup.training.config import TrainingConfig
from groundup.training.objectives.objective import Batch, Objective
from groundup.training.run import Run
from groundup.training.session import Training
from groundup.training.signals import Interrupted


def fit(
    model: Any,
    objective: Objective,
    data: Iterable[Batch],
    config: TrainingConfig,
    callbacks: Sequence[Callback] = (),
    *,
    tokenizer: Any = None,
    settings: Any = None,
) -> Run:
    """Train `model` in place.

    Args:
        model: called as model(ids, positions=, documents=, head=); its blocks are the children of `model.blocks`.
        objective: what the loss is; see `Objective`.
        data: a `Loader`, or any iterable of batches.
        config: how long, how fast, where the run folder is.
        callbacks: what happens besides: evaluation, samples, TensorBoard, report.
        tokenizer: of the data; its fingerprint goes into checkpoints, and resuming with another one is refused.
        settings: written to config.yaml in place of `config` (a recipe of which the config is a part).

    Returns:
        The run folder.

    Raises:
        NotFiniteError: a loss or gradient was not finite and the policy says stop.
        DataError: no data, a batch without a trained token, ids outside the vocabulary.
        CheckpointError: the checkpoint to resume from is damaged or of another model or tokenizer.
        Interrupted: (a SystemExit with code 143 or 130) SIGTERM or SIGINT came; a checkpoint was written.
    """
    with Training(model, objective, data, config, callbacks, tokenizer, settings) as training:
        training.start()
        while not training.ended():
            batch = training.next_batch()
            rate = training.set_rate()
            result = training.update(batch)
            if result.applied:
                training.record(result, rate)
            else:
                training.skip(result, batch)
            training.after_step(result)
        training.end()
    if training.signal:
        raise Interrupted(training.signal, training.farewell())
    return training.run
