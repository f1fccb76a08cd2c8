"""eexit: train, attack, calibrate, evaluate and plot early-exit (multi-exit) transformers.

Early exit is here that a sample, or a token, leaves after one of the layers and skips the others;
it is not that a model stops its reasoning early.

The command line is ``eexit_cli.main``; the use cases behind it are plain functions in
``eexit_cli.pipelines`` and can be called from Python.
"""

__version__ = "0.1.0"
