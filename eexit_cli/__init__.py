"""eexit: train, attack, calibrate, evaluate and plot early-exit transformers.

The command line is ``eexit_cli.main``; the use cases behind it are plain functions in
``eexit_cli.pipelines`` and can be called from Python.
"""

__version__ = "0.1.0"
