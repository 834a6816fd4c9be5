"""Mixtures of experts: a gate sends each token to a few of many feed-forward networks.

    routing.py     what a gate decides, and what can be read from it
    gates/         one way of deciding a file
    losses.py      auxiliary losses that keep the loads even, and how they enter the gradient
    experts.py     many networks of one shape, computed for tokens sorted by expert
    mixture.py     gate, experts and shared expert in the place of a block's MLP

Letters besides those of `layers`: N tokens of all rows together, E experts, k experts a token.
"""
