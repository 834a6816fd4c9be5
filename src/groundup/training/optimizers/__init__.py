"""Optimizers: SGD, Adam, AdamW, AdaFactor and Muon, over fp32 masters laid end to end in flat buffers."""
