"""Numbers by which compiled functions are told what to compute; here, so that they are known without numba."""

RMS, LAYER = 1, 2
"""Kinds of norms; 0 is none."""
EACH_HEAD, ALL_HEADS = 0, 1
"""What a norm of queries and keys is taken over."""
RELU, SQUARED_RELU, GELU, TANH_GELU, SILU = 1, 2, 3, 4, 5
"""Kinds of activations."""
