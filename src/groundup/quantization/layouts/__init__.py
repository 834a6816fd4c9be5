"""How quantized layers lie in the files of other libraries."""
