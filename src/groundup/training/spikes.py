"""Loss spikes: a loss far above the recent ones is treated like one that is not finite."""

import math
import statistics
from collections import deque

REMEMBERED = 101
NEEDED = 10
FLOOR = 1.0


class LossSpikes:
    """The largest loss that still counts as normal: `factor` times the running median.

    The median is that of the last 101 good steps, once there are ten, and no loss below 1 is a spike: a model that
    knows its data by heart has losses near 0, of which a hundredfold means nothing. Without a factor, or with a
    median that is not positive (some objectives), every loss is normal.
    """

    def __init__(self, factor: float | None):
        self.factor = factor
        self._recent: deque[float] = deque(maxlen=REMEMBERED)

    def observe(self, loss: float) -> None:
        """Take in the loss of a good step."""
        self._recent.append(loss)

    def limit(self) -> float:
        """Losses above it are spikes."""
        if self.factor is None or len(self._recent) < NEEDED:
            return math.inf
        median = statistics.median(self._recent)
        return max(FLOOR, self.factor * median) if median > 0 else math.inf

    def state_dict(self) -> list[float]:
        """What a checkpoint keeps."""
        return list(self._recent)

    def load_state_dict(self, state: list[float]) -> None:
        """Take back `state_dict()`."""
        self._recent = deque(state, maxlen=REMEMBERED)
