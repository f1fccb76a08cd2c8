"""Confidence measures: pure functions of an exit's logits, each with its direction.

Add one: a file with a ``MEASURE`` that satisfies ``core.protocols.Measure``, and a line here.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

MEASURES = Catalog(
    "confidence measure",
    {
        "entropy": "eexit_cli.confidence.entropy:MEASURE",
        "max-prob": "eexit_cli.confidence.max_prob:MEASURE",
        "margin": "eexit_cli.confidence.margin:MEASURE",
    },
    aliases={
        "softmax": "margin",
        "max_prob": "max-prob",
        "maximum-probability": "max-prob",
        "softmax-response": "margin",
    },
)
