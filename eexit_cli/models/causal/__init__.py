"""Decoder-only models with an exit after every layer, over transformers' own modules."""
