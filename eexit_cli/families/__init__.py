"""Families of models: what loads one, runs it, and puts its components together."""
