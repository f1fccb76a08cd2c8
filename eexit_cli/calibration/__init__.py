"""Choosing an exit threshold with a guarantee (Learn then Test 2110.01052; CALM 2207.07061).

Everything here works on losses, samples by thresholds, whoever made them: it knows no model and
never imports torch. Add a testing procedure: a function in ``testing.py`` or a file of its own,
and a line here. Add a p-value: see :mod:`eexit_cli.calibration.p_values`.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

PROCEDURES = Catalog(
    "testing procedure",
    {
        "fixed-sequence": "eexit_cli.calibration.testing:FIXED_SEQUENCE",
        "fixed-sequence-starts": "eexit_cli.calibration.testing:FIXED_SEQUENCE_STARTS",
        "bonferroni": "eexit_cli.calibration.testing:BONFERRONI",
        "holm": "eexit_cli.calibration.testing:HOLM",
    },
    aliases={"fixed_sequence": "fixed-sequence", "bonferroni-holm": "holm"},
)

CONSISTENCIES = Catalog(
    "consistency",
    {
        "textual": "eexit_cli.calibration.risks:TEXTUAL",
        "risk": "eexit_cli.calibration.risks:RISK",
    },
)

TEXT_METRICS = Catalog(
    "text metric",
    {
        "rouge-l": "eexit_cli.calibration.text_metrics:rouge_l",
        "rouge-l-tokens": "eexit_cli.calibration.text_metrics:rouge_l_tokens",
        "exact-match": "eexit_cli.calibration.text_metrics:exact_match",
    },
    aliases={"rougeL": "rouge-l", "rouge_l": "rouge-l", "rouge-l-phonemes": "rouge-l-tokens"},
)
