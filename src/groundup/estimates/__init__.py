"""What a model costs before it is built: parameters, operations, memory. Arithmetic only; no torch but in `machine`."""
