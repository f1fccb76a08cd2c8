"""Encoder-decoders whose tokens leave early: CALM, FREE. Each exit decodes anew."""
