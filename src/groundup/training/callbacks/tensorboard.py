"""TensorBoard event files, where tensorboardX is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.base.errors import MissingDependency
from groundup.training.callbacks.callback import Callback

if TYPE_CHECKING:
    from groundup.training.session import Training


class TensorBoard(Callback):
    """Copies every number of metrics.jsonl into tensorboard/.

    Raises:
        MissingDependency: tensorboardX is absent (`TensorBoard.available()` tells).
    """

    def __init__(self) -> None:
        if not self.available():
            raise MissingDependency("tensorboardX", "track", "writing TensorBoard files")
        self._writer: Any = None

    @staticmethod
    def available() -> bool:
        """Whether tensorboardX can be imported."""
        from importlib.util import find_spec

        return find_spec("tensorboardX") is not None

    def on_load(self, training: Training) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(training.run.path / "tensorboard"))

    def on_log(self, training: Training, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{record['event']}/{name}", value, record["step"])

    def on_close(self, training: Training) -> None:
        self.on_error(training)

    def on_error(self, training: Training) -> None:
        if self._writer is not None:
            self._writer.close()
