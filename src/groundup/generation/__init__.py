"""From a model to text: sampling, generate, streaming."""
