"""How a figure is called and written, by its flat name in ``all_results.json``.

The three speed figures keep their own names everywhere; see the glossary of the README.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from eexit_cli.core.digits import at_least, exact, fixed_down, fixed_up

Write = Callable[[float], str]


def share(value: float) -> str:
    return f"{value * 100:.1f} %"


def factor(value: float) -> str:
    return f"{value:.2f}x"


def coefficient(value: float) -> str:
    return f"{value:.3f}"


def loss(value: float) -> str:
    """Not below itself: a mean just above delta must not look like delta."""
    # Means of the same numbers in another order differ in the last digits.
    return fixed_up(round(value, 12), 3)


def upper(value: float) -> str:
    return fixed_up(value, 3)


def lower(value: float) -> str:
    return fixed_down(value, 3)


def depth(value: float) -> str:
    return f"{value:.2f}"


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms"


def milliseconds_long(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:.2f}"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 120 else f"{value / 60:.1f} min"


def short_time(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else seconds(value)


def joule_digits(value: float) -> tuple[int, int, str]:
    """What joules are multiplied by, the decimals that three digits take, and the unit."""
    scale, unit = (1000, "mJ") if abs(value) < 1 else (1, "J")
    size = abs(value) * scale
    return scale, max(0, 2 - math.floor(math.log10(size))) if size else 0, unit


def joules(value: float) -> str:
    scale, places, unit = joule_digits(value)
    return f"{value * scale:,.{places}f} {unit}"


def watts(value: float) -> str:
    return f"{value:.1f} W"


def rate(value: float) -> str:
    return f"{value:,.1f} /s"


def count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def significance(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def tested(value: float) -> str:
    """A p-value that a guarantee rests on: not below itself, or it might look rejected."""
    return fixed_up(value, 3) if value >= 0.001 else at_least(value, 2)


def flops(value: float) -> str:
    for size, unit in ((1e12, "TFLOP"), (1e9, "GFLOP")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value / 1e6:.2f} MFLOP" if value >= 1e5 else f"{value / 1e3:.1f} kFLOP"


MEASURES: dict[str, tuple[str, Write]] = {
    "accuracy": ("Accuracy", share),
    "same_exits": ("Same exits", share),
    "same_labels": ("Same labels", share),
    "f1": ("F1", share),
    "matthews": ("Matthews correlation", coefficient),
    "matthews_correlation": ("Matthews correlation", coefficient),
    "pearson": ("Pearson correlation", coefficient),
    "spearman": ("Spearman correlation", coefficient),
    "rouge_1": ("ROUGE-1", share),
    "rouge_2": ("ROUGE-2", share),
    "rouge_l": ("ROUGE-L", share),
    "rouge_lsum": ("ROUGE-Lsum", share),
    "bleu": ("BLEU", share),
    "exact_match": ("Exact match", share),
    "squad_exact_match": ("Exact match (SQuAD)", share),
    "squad_f1": ("F1 of the words (SQuAD)", share),
    "perplexity": ("Perplexity", depth),
    "final_number_match": ("Right final number", share),
    "phoneme_error_rate": ("Phoneme error rate", share),
    "mean_exit_layer": ("Mean exit layer", depth),
    "speedup_layers": ("Speedup (L / mean exit layer)", factor),
    "saved_layers": ("Saved layers (1 - mean / L)", share),
    "cost_layers": ("Cost (mean exit layer / L)", share),
    "efficacy": ("Efficacy (area under exits)", coefficient),
    "latency_ms": ("Latency, batch 1", milliseconds),
    "latency_full_ms": ("Latency, batch 1, full model", milliseconds),
    "speedup_seconds": ("Speedup in seconds, batch 1", factor),
    "throughput": ("Inputs per second", rate),
    "throughput_full": ("Inputs per second, full model", rate),
    "speedup_throughput": ("Speedup in inputs per second", factor),
    "joules_per_sample": ("Joules per sample, batch 1", joules),
    "joules_share": ("Joules, share of the full model's", share),
    "joules_per_token": ("Joules per token, batch 1", joules),
    "joules_growth": ("Joules after / before", factor),
    "processor_joules_per_sample": ("Joules per sample, processor", joules),
    "memory_joules_per_sample": ("Joules per sample, memory", joules),
    "gpu_joules_per_sample": ("Joules per sample, GPU", joules),
    "idle_watts": ("Idle power", watts),
    "flops_per_sample": ("Work per sample", flops),
    "flops_full": ("Work per sample, full model", flops),
    "adapted_threshold": ("Threshold in the end", upper),
    "agreement": ("Outputs as the full model's", share),
    "output_similarity": ("Likeness to the full model's outputs", share),
    "total_layers_mean": ("Layers per output", depth),
    "tokens_mean": ("Tokens per output", depth),
    "tokens_per_second": ("Tokens per second", rate),
    "tokens_per_second_single": ("Tokens per second, batch 1", rate),
    "acceptance_rate": ("Drafted tokens accepted", share),
    "tokens_per_verification": ("Tokens per verification", depth),
    "verifications_per_token": ("Verifications per token", coefficient),
    "verifications_mean": ("Verifications per output", depth),
    "flops_per_token": ("Work per token, the input left out", flops),
    "layers_run_per_token": ("Layers run per token", depth),
    "encoder_seconds": ("Time reading inputs", short_time),
    "decoder_seconds": ("Time in decoder layers", short_time),
    "filling_seconds": ("Time filling skipped layers", short_time),
    "confidence_seconds": ("Time for the confidence", short_time),
    "head_seconds": ("Time in the LM head", short_time),
    "other_seconds": ("Time for the rest", short_time),
    "tokens": ("Tokens", count),
    "truncated": ("Inputs cut", count),
    "unfinished": ("Outputs cut", count),
    "decoder_ms": ("ms per token", milliseconds_long),
    "confidence_ms": ("ms per token for the confidence", milliseconds_long),
    "gain_removed": ("Gain removed", share),
    "gain_removed_attacked": ("Gain removed, attacked samples alone", share),
    "goal_success_rate": ("Success (reaches the recipe's goal)", share),
    "last_layer_rate": ("Inputs at the last layer", share),
    "queries_mean": ("Queries per sample", count),
    "gradient_passes_mean": ("Gradient passes per sample", count),
    "seconds_mean": ("Seconds per sample", seconds),
    "changes_mean": ("Words (letters) changed per sample", depth),
    "change_rate_mean": ("Share of words (letters) changed", share),
    "change_rate_max": ("Largest share of words (letters) changed", share),
    "similarity_embedding_mean": ("Similarity (cosine of mean word embeddings)", coefficient),
    "similarity_characters_mean": ("Similarity (characters kept)", coefficient),
    "search_queries": ("Queries to learn the prefix", count),
    "search_gradient_passes": ("Gradient passes to learn the prefix", count),
    "search_seconds": ("Time to learn the prefix", seconds),
    "latency_samples": ("Samples timed one by one", count),
    "throughput_samples": ("Samples timed in batches", count),
    "timing_repeats": ("Repeats of the timing", count),
    "samples": ("Samples", count),
    "quality_samples": ("Samples with a reference that holds", count),
    "attacked": ("Attacked", count),
    "skipped": ("Skipped (nothing to attack)", count),
    "num_layers": ("Layers (L)", count),
    "examples": ("Examples", count),
    "epochs": ("Epochs", count),
    "seconds": ("Time", seconds),
    "threshold": ("Threshold", exact),
    "mean_loss": ("Mean loss", loss),
    "mean_loss_bound": ("Bound on the mean loss", upper),
    "mean_loss_low": ("Mean loss, lower bound", lower),
    "mean_loss_high": ("Mean loss, upper bound", upper),
    "test_mean_loss": ("Mean loss, test", loss),
    "p_value": ("p-value", tested),
    "quality": ("Quality", coefficient),
    "within_delta": ("Mean loss within delta", str),
    "loss": ("Loss", coefficient),
}
"""Flat name -> what people call it, and how its numbers are written."""

_FULL = re.compile(r"(.+)_full$")
_EXIT = re.compile(r"(.+)_exit_(\d+)$")
_END = re.compile(r"(.+)_(low|high)$")
_OF = re.compile(r"(.+)_(file|model)$")


def label(name: str) -> str:
    """What people call a figure."""
    if name in MEASURES:
        return MEASURES[name][0]
    if (match := _EXIT.match(name)) is not None:
        return f"{label(match[1])}, exit {match[2]}"
    if (match := _END.match(name)) is not None and match[1] in MEASURES:
        return f"{label(match[1])}, {match[2]} end"
    if (match := _FULL.match(name)) is not None:
        return f"{label(match[1])}, full model"
    return name.replace("_", " ").capitalize()


def written(name: str, value: Any) -> str:
    """A figure as people read it; a dash where there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return str(value)
    base = name
    for pattern in (_EXIT, _FULL, _END, _OF):
        if base not in MEASURES and (match := pattern.match(base)) is not None:
            base = match[1]
    if base in MEASURES:
        return MEASURES[base][1](value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
