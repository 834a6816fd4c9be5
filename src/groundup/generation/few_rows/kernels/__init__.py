"""Functions compiled by numba: products of stored weights, and what stands between them in a step.

Weights are told by their addresses, 0 for none, so that a function is compiled once for all models. `like` is an empty
array of the type of the stored weights: float32, or uint16 for bfloat16.
"""
