"""T5 with early exit in the decoder: the model, its own greedy loop, FREE, tracing.

:class:`~eexit_cli.models.seq2seq.model.MultiExitT5` is the door. Out of scope: LongT5, LoRA and
FREE's RollBack.
"""
