"""Encoder classifiers with an exit after every layer, and the layouts that they are stored in."""
