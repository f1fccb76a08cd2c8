"""Decoder-only models whose tokens leave early: LayerSkip, CALM on a causal model."""
