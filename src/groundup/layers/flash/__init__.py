"""Attention computed in tiles that fit into fast memory: FlashAttention 1, 2 and 3, and Flash-Decoding, to read."""
