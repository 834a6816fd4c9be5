"""How good a model is: likelihoods, perplexity, metrics, tasks, and a harness whose scores carry a fingerprint."""
