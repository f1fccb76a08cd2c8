"""Models: one multi-exit encoder classifier over a table of backbones, and checkpoint layouts."""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

BACKBONES = Catalog(
    "backbone",
    {
        "bert": "eexit_cli.models.encoder.backbones:BERT",
        "roberta": "eexit_cli.models.encoder.backbones:ROBERTA",
        "albert": "eexit_cli.models.encoder.backbones:ALBERT",
        "distilbert": "eexit_cli.models.encoder.backbones:DISTILBERT",
        "mpnet": "eexit_cli.models.encoder.backbones:MPNET",
        "electra": "eexit_cli.models.encoder.backbones:ELECTRA",
    },
)
