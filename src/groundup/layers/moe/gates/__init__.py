"""Gates: who goes to which expert. Each is a way to make a `Routing` from tokens (N, D)."""
