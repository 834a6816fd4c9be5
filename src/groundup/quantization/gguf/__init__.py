"""GGUF files, which llama.cpp runs: models with their tokenizers, both ways.

blocks.py         the packed number formats
linear.py         a linear layer whose matrix stays packed
architectures.py  what llama.cpp calls the tensors and settings of each family
writing.py        a model and its tokenizer to a file
loading.py        a file to a model
"""
