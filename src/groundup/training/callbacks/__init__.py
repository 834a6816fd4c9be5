"""Callbacks: what happens beside the updates."""
