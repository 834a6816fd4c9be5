"""Vocabulary files of other projects, both ways: each module has `sniff`, `read` and `write`."""
