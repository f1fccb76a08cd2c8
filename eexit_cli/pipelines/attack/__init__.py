"""Attacks on whatever model: sample by sample, recipe by recipe, and what follows."""
