"""The use cases: they put the component packages together, print nothing, and return results.

This is the public Python API: each ``run_*`` takes the command's configuration from
``eexit_cli.config`` and an optional progress display.
"""
