"""`for_decoding`: the same model, with parts made for the few rows of a decoding step.

On a processor a step's time is that of reading the weights, and of the many small operations between; general matrix
products read at half speed (one row), or compute at half speed (16 rows). Here weights stay as they are stored, float32
or bfloat16, and all arithmetic is float32: a bfloat16 checkpoint gives what it gives when loaded in float32, in half
the time and memory. Attention, feed-forward networks, experts and whole pre-norm blocks are single compiled calls.

    view.py                 which parts of which models are exchanged
    linear.py, norms.py, attention.py, feed_forward.py, block.py     the parts
    kinds.py                what both sides call norms and activations
    kernels/                what they call, compiled by numba
"""

from groundup.generation.few_rows.linear import MOST_ROWS
from groundup.generation.few_rows.view import for_decoding, load, suits

__all__ = ["MOST_ROWS", "for_decoding", "load", "suits"]
