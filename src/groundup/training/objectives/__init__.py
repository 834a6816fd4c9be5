"""Objectives: what a model is trained towards. The loop is the same for all of them."""
