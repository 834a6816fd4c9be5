"""Other ways of attending, each a file that shows its difference from `layers/attention.py`."""
