"""One module per verb: a Config (flags, YAML, Python, HTTP) and what it does."""
