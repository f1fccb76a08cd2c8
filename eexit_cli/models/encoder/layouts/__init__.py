"""Checkpoint layouts: how published files name what a multi-exit classifier holds.

A layout is recognised from the configuration and the tensors' names, and says what the file calls
every tensor of :class:`~eexit_cli.models.encoder.model.MultiExitClassifier`. Add one: a file with a
``LAYOUT`` that satisfies :class:`~eexit_cli.models.encoder.layouts.base.Layout`, and a line here.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

LAYOUTS = Catalog(
    "checkpoint layout",
    {
        "eexit": "eexit_cli.models.encoder.layouts.own:LAYOUT",
        "deebert": "eexit_cli.models.encoder.layouts.deebert:LAYOUT",
        "pabee": "eexit_cli.models.encoder.layouts.pabee:LAYOUT",
    },
)
