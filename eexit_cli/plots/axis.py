"""Axes that several figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def inches_across(ax: Axes) -> float:
    """How wide the axes are, as far as is known before the page is laid out."""
    figure = ax.get_figure(root=True)
    return float(ax.get_position().width * (figure.get_figwidth() if figure else 3.3))


def layer_axis(ax: Axes, num_layers: int, *, label: str = "Exit layer") -> None:
    """An x axis of exit layers 1..L: whole numbers, the last one always, as many as have room."""
    digits = len(str(num_layers))
    room = max(2, int(inches_across(ax) / (0.05 + 0.06 * digits)))
    step = -(-num_layers // room)
    ax.set_xticks(range(num_layers, 0, -step))
    ax.set_xlim(0.4, num_layers + 0.6)
    ax.set_xlabel(label)


_UNITS = {
    "accuracy": ("Accuracy (%)", 100.0),
    "f1": ("F1 (%)", 100.0),
    "matthews_correlation": ("Matthews correlation", 1.0),
    "pearson": ("Pearson correlation", 1.0),
    "spearman": ("Spearman correlation", 1.0),
    "rouge_1": ("ROUGE-1 (%)", 100.0),
    "rouge_2": ("ROUGE-2 (%)", 100.0),
    "rouge_l": ("ROUGE-L (%)", 100.0),
    "rouge_lsum": ("ROUGE-Lsum (%)", 100.0),
    "bleu": ("BLEU", 100.0),
    "exact_match": ("Exact match (%)", 100.0),
    "squad_exact_match": ("Exact match (%)", 100.0),
    "squad_f1": ("F1 (%)", 100.0),
    "perplexity": ("Perplexity", 1.0),
    "final_number_match": ("Right numbers (%)", 100.0),
    "phoneme_error_rate": ("Phoneme error rate (%)", 100.0),
}


def metric_label(name: str) -> tuple[str, float]:
    """How a task metric is printed: its axis label, and what its values are multiplied by."""
    return _UNITS.get(name, (name.replace("_", " "), 1.0))
