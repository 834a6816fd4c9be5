"""Scores of answers, and how sure one can be of their means."""
