"""Metrics, tasks and baselines: how good a model is, and what it has to beat."""
