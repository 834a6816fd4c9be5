"""A byte tokenizer and a small recurrent model that keep the contracts and need nothing else."""

from types import SimpleNamespace

import torch
from torch import nn


class Bytes:
    """One id a byte; 256 is end-of-text, 257 begins a text."""

    vocab_size = 258
    special_tokens = {"<|end|>": 256, "<|begin|>": 257}
    eos_id, bos_id, pad_id, unk_id, chat_template = 256, 257, None, None, None

    def encode(self, text, *, bos=False, eos=False, allowed_special=False):
        return [257] * bos + list(text.encode()) + [256] * eos

    def encode_batch(self, texts, **options):
        return [self.encode(text, **options) for text in texts]

    def decode(self, ids, *, skip_special=False):
        return b"".join(self.token_bytes(i) for i in ids if not (skip_special and i >= 256)).decode("utf-8", "replace")

    def token_bytes(self, i):
        return bytes([i]) if i < 256 else {256: b"<|end|>", 257: b"<|begin|>"}[i]

    def fingerprint(self):
        return "bytes"


class DecayState:
    def __init__(self, batch, max_len, dim):
        self.sums, self.max_len = torch.zeros(batch, dim), max_len
        self.lengths = torch.zeros(batch, dtype=torch.int64)

    def select(self, rows):
        self.sums, self.lengths = self.sums[rows], self.lengths[rows]


class Decay(nn.Module):
    """h_t = h_{t-1} / 2 + E[x_t]; what it gives depends on all real tokens and on no padding."""

    def __init__(self, vocab=258, dim=16, limit=None, seed=0, scale=3.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Parameter(torch.randn(vocab, dim, generator=generator))
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        self.lm_head.weight.data = torch.randn(vocab, dim, generator=generator) * scale / dim**0.5
        self.config = SimpleNamespace(vocab_size=vocab, max_position_embeddings=limit)
        self.calls = []

    def make_state(self, batch, max_len):
        return DecayState(batch, max_len, self.embed.shape[1])

    def forward(self, x, *, positions=None, documents=None, state=None, head=None):
        self.calls.append(tuple(x.shape))
        real = torch.ones_like(x) if documents is None else (documents != 0).long()
        sums = state.sums if state is not None else torch.zeros(len(x), self.embed.shape[1])
        hidden = []
        for t in range(x.shape[1]):
            moved = sums / 2 + self.embed[x[:, t]]
            sums = torch.where(real[:, t, None] > 0, moved, sums)
            hidden.append(sums)
        if state is not None:
            state.sums, state.lengths = sums, state.lengths + real.sum(1)
            assert int(state.lengths.max()) <= state.max_len
        hidden = torch.stack(hidden, 1)
        return self.lm_head(hidden) if head is None else head(hidden, self.lm_head)
