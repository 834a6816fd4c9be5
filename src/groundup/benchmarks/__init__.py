"""Benchmarks: us and our peers, in turn, on one machine in one run. `groundup bench NAME` runs them."""
