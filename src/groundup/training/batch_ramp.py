"""Batch-size ramp-up: small batches early, when gradients of different examples still agree (Brown et al. 2020)."""

from pydantic import Field

from groundup.base.config import Config


class BatchRamp(Config):
    """Linear rise of the batch over the first tokens; GPT-3 rose from 32k tokens over its first 4 to 12 billion."""

    start_tokens: int = Field(default=32_000, ge=1)
    """Batch size at the beginning, in tokens."""
    ramp_tokens: int = Field(default=4_000_000_000, ge=0)
    """Tokens seen when the full batch is reached."""

    def batch_tokens(self, tokens_seen: int, full_batch_tokens: int) -> int:
        """Tokens in the next batch: start + (full - start) min(1, seen / ramp), never above the full batch."""
        start = min(self.start_tokens, full_batch_tokens)
        if tokens_seen >= self.ramp_tokens:
            return full_batch_tokens
        return start + (full_batch_tokens - start) * tokens_seen // self.ramp_tokens

    def micro_batches(self, tokens_seen: int, full_micro_batches: int, tokens_per_micro_batch: int) -> int:
        """The same as a whole number (at least 1) of micro-batches: what gradient accumulation uses."""
        full = full_micro_batches * tokens_per_micro_batch
        return max(1, self.batch_tokens(tokens_seen, full) // tokens_per_micro_batch)
