"""Figures: each is drawn from a table of runs' numbers and never touches a model.

Add one: a file with a figure (:class:`eexit_cli.plots.figure.FigureSpec`), whose ``frame``
turns runs into a table and whose ``draw`` puts that table on an axes, and a line here.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

FIGURES = Catalog(
    "figure",
    {
        "slowdown": "eexit_cli.plots.slowdown:FIGURE",
        "recipes": "eexit_cli.plots.recipes:FIGURE",
        "efficacy": "eexit_cli.plots.efficacy:FIGURE",
        "budget": "eexit_cli.plots.budget:FIGURE",
        "transfer": "eexit_cli.plots.transfer:FIGURE",
        "tradeoff": "eexit_cli.plots.tradeoff:FIGURE",
        "exits": "eexit_cli.plots.exits:FIGURE",
        "quality-layers": "eexit_cli.plots.quality_lines:LAYERS",
        "quality-time": "eexit_cli.plots.quality_lines:TIME",
        "confidence-time": "eexit_cli.plots.confidence_time:FIGURE",
        "acceptance": "eexit_cli.plots.acceptance:FIGURE",
        "exits-position": "eexit_cli.plots.exits_position:FIGURE",
        "calibration": "eexit_cli.plots.calibration:FIGURE",
        "calibration-risk": "eexit_cli.plots.calibration_lines:RISK",
        "calibration-layers": "eexit_cli.plots.calibration_lines:LAYERS",
        "calibration-threshold": "eexit_cli.plots.calibration_lines:THRESHOLD",
        "calibration-samples": "eexit_cli.plots.calibration_samples:FIGURE",
        "calibration-violations": "eexit_cli.plots.calibration_lines:VIOLATIONS",
        "calibration-p-values": "eexit_cli.plots.calibration_p_values:FIGURE",
    },
    plugins="eexit.figures",
    needs=("suits", "frame", "draw", "commands"),
)

FORMATS = ("png", "svg", "pdf")
