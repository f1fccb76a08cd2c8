"""T5 with early exit in the decoder: weights, encoder, tracing, and how it is stored.

:class:`~eexit_cli.models.t5.model.MultiExitT5` is the door. Out of scope: LongT5, LoRA and FREE's
RollBack.
"""
