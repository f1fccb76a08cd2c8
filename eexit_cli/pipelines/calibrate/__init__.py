"""Calibration of whatever answers early: losses along a scale, and what they promise."""
