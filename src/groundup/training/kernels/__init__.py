"""Faster forms of a model's parts for training on a CPU; `accelerated` puts them into a built model from outside."""
