"""Text models: decoders now, encoders and encoder-decoders as they come."""
