"""What is kept on disk: runs (``results.py``) and the names of models (``models.py``).

Nothing here imports torch, transformers or pandas, so listing runs and models starts fast.
"""
