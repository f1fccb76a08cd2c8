"""Families of models: what loads one, runs it, and puts its components together.

Add one: a package with a ``FAMILY`` that satisfies :class:`eexit_cli.core.family.Family`, and a
line here.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

FAMILIES = Catalog(
    "model family",
    {
        "encoder": "eexit_cli.families.encoder.family:FAMILY",
        "seq2seq": "eexit_cli.families.seq2seq.family:FAMILY",
        "causal": "eexit_cli.families.causal.family:FAMILY",
    },
    plugins="eexit.families",
)
