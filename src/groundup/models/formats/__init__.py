"""Weights in other forms than Hugging Face folders: how each is recognised, read and named. Nothing is executed."""
