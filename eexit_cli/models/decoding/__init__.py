"""Decoding with early exits: the loop, streams of batches, caches, scores and their kernels."""
