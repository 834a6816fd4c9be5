"""What a model is made of: found by running it, drawn, and compared."""
