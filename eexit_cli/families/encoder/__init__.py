"""Encoders with an exit after every layer: DeeBERT, PABEE. One trace answers every exit."""
