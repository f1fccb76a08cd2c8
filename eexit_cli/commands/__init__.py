"""One file per command: build the configuration, call one pipeline, render.

Add one: a file with a function under ``@from_config(...)`` and its ``EXAMPLES``, and a line in
``main.py``. Pipelines are imported inside the function, so that help stays fast.
"""
