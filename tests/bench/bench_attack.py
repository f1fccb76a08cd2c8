"""Seconds per attacked sample: ours against the published procedure, and where the gain is from.

    python tests/bench/bench_attack.py --model deebert --samples 10

Both attack the same samples of the same model at the published settings (lam 0.8, top_n 100, beam
5, 10 rounds). The published procedure is ``published_same.py``. The stages in between switch on one
idea after the other, so that their factors multiply to the whole:

- kernels: gradients at the input's positions only, one matrix product and a partial selection
  instead of a full sort, decisions as tensors, packed linear layers where the processor gains;
- live exits: candidates leave the batch at their exit;
- fewer queries: narrow before wide, stop at the last layer, nothing scored twice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from eexit_cli.attacks.textattack_env import prepare

prepare()

from published_same import PublishedSame  # noqa: E402
from textattack.shared import AttackedText  # noqa: E402

from eexit_cli.attacks import ATTACKS  # noqa: E402
from eexit_cli.attacks.budget import Budget  # noqa: E402
from eexit_cli.attacks.encoder_victim import EncoderVictim  # noqa: E402
from eexit_cli.attacks.published_same import untrained_ramp  # noqa: E402
from eexit_cli.attacks.search import BeamSearch, Stage  # noqa: E402
from eexit_cli.config import AttackConfig  # noqa: E402
from eexit_cli.core.progress import SilentProgress  # noqa: E402
from eexit_cli.core.stepping import ExitCursor  # noqa: E402
from eexit_cli.data import load_examples  # noqa: E402
from eexit_cli.families.batches import texts_of  # noqa: E402
from eexit_cli.families.encoder.exits import build_criterion  # noqa: E402
from eexit_cli.families.encoder.model import LoadedModel, load_model  # noqa: E402
from eexit_cli.models.decoding.kernels import for_inference  # noqa: E402


class FullPass:
    """Scores as the live path does, but runs every layer for every text first."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def infer(self, *, criterion: Any, on_exit: Any, **batch: torch.Tensor) -> Any:
        logits = self.model(**batch).logits
        cursor = ExitCursor(criterion, logits.shape[1])
        for layer in range(1, logits.shape[1] + 1):
            rows = cursor.rows_before(logits[:, 0])
            if not len(rows):
                break
            on_exit(layer, rows, logits[rows, layer - 1])
            cursor.advance(layer, logits[rows, layer - 1])
        return cursor.decision()


@dataclass
class Measured:
    name: str
    seconds: float
    cpu_seconds: float
    before: float
    after: float
    queries: float
    gradient_passes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deebert")
    parser.add_argument("--samples", type=int, default=10, help="samples that are attacked")
    parser.add_argument("--upstream", action="store_true", help="the public code, not the paper")
    arguments = parser.parse_args()

    config = AttackConfig(model=arguments.model, limit=0)
    loaded = load_model(config)
    config = loaded.own_data(config, SilentProgress())
    examples = load_examples(config, default_split="test", label_names=loaded.label_names)
    texts = _attackable(loaded, config, texts_of(examples)[0], arguments.samples)
    print(
        f"model {arguments.model}, exit {loaded.exit_defaults}, {len(texts)} samples that leave "
        f"early, {torch.get_num_threads()} threads"
    )
    everything = [Stage(config.top_n, config.beam_width, chunk=10**9)]
    runs = [
        lambda: _published(loaded, config, texts, upstream=arguments.upstream),
        lambda: _ours("+ our gradients and ranking", loaded, config, texts, everything, live=False),
        lambda: _ours("+ live exits", loaded, config, texts, everything),
        lambda: _ours("+ fewer queries", loaded, config, texts, None),
        lambda: _ours("+ packed kernels = ours", loaded, config, texts, None, pack=None),
    ]
    head = ("s/sample", "CPU s", "queries", "gradients", "layers", "factor")
    print(f"{'':30}", *(f"{name:>9}" for name in head))
    stages: list[Measured] = []
    for run in runs:
        item = run()
        factor = stages[-1].cpu_seconds / item.cpu_seconds if stages else 1.0
        row = (
            item.seconds,
            item.cpu_seconds,
            item.queries,
            item.gradient_passes,
            item.after,
            factor,
        )
        print(f"{item.name:30}", *(f"{value:9.2f}" for value in row), flush=True)
        stages.append(item)
    published, ours = stages[0], stages[-1]
    print(f"mean exit layer {ours.before:.2f} before; {published.after:.2f} published, "
          f"{ours.after:.2f} ours")  # fmt: skip
    for clock in ("seconds", "cpu_seconds"):
        print(_split(clock, *stages))


def _split(clock: str, *stages: Measured) -> str:
    """The whole ratio as a product; CPU seconds bear with a busy machine, on one thread."""
    published, machinery, live, fewer, ours = (getattr(stage, clock) for stage in stages)
    kernels = published / machinery * fewer / ours
    return (
        f"{clock}: {published / ours:.1f}x = kernels {kernels:.2f} x live exits "
        f"{machinery / live:.2f} x fewer queries {live / fewer:.2f}"
    )


def _attackable(
    loaded: LoadedModel, config: AttackConfig, texts: list[str], wanted: int
) -> list[str]:
    criterion = _criterion(loaded, config)
    batcher = loaded.batcher()
    found = []
    for text in texts:
        decision = loaded.model.infer(**batcher([text]), criterion=criterion)
        if int(decision.exit_layers[0]) < loaded.num_layers:
            found.append(text)
        if len(found) == wanted:
            break
    return found


def _criterion(loaded: LoadedModel, config: AttackConfig) -> Any:
    return build_criterion(
        config,
        loaded.exit_defaults,
        num_layers=loaded.num_layers,
        num_classes=loaded.num_classes,
    )


def _published(
    loaded: LoadedModel, config: AttackConfig, texts: list[str], *, upstream: bool
) -> Measured:
    settings = loaded.exit_defaults
    kind = "entropy" if settings["criterion"] == "threshold" else "patience"
    if kind == "entropy" and settings.get("confidence", "entropy") != "entropy":
        raise SystemExit("the published procedure knows entropy and patience only")
    value = settings["threshold" if kind == "entropy" else "patience"]
    procedure = PublishedSame(
        loaded.model,
        loaded.tokenizer,
        (kind, float(value)),
        max_length=loaded.max_length,
        lam=config.lam,
        top_n=config.top_n,
        beam_width=config.beam_width,
        per_size=config.per_size,
        change_rate=config.change_rate,
        upstream=upstream,
        ramp=untrained_ramp(loaded.model) if upstream else None,
    )

    def run(text: str) -> tuple[int, int, int, int]:
        before, after, _ = procedure.attack(text)
        return before, after, procedure.queries, procedure.gradient_passes

    try:
        return _measure("published procedure", run, texts)
    finally:
        loaded.model.requires_grad_(False)


def _ours(
    name: str,
    loaded: LoadedModel,
    config: AttackConfig,
    texts: list[str],
    stages: list[Stage] | None,
    *,
    live: bool = True,
    pack: bool | None = False,
) -> Measured:
    loaded.model.requires_grad_(False)
    budget = Budget()
    scorer: Any = for_inference(loaded.model, pack=pack)
    victim = EncoderVictim(
        loaded.model,
        loaded.batcher(),
        _criterion(loaded, config),
        budget,
        scorer=scorer if live else FullPass(scorer),
    )
    attack = ATTACKS.load("same-token").build(victim, budget, config)
    if stages is not None:
        search: BeamSearch = attack.search_method
        search.stages, search.stop_at_goal = tuple(stages), False

    def run(text: str) -> tuple[int, int, int, int]:
        result = attack.attack(AttackedText(text), 0)
        return (
            result.original_result.raw_output.exit_layer,
            result.perturbed_result.raw_output.exit_layer,
            budget.queries,
            budget.gradient_passes,
        )

    return _measure(name, run, texts)


def _measure(
    name: str, run: Callable[[str], tuple[int, int, int, int]], texts: list[str]
) -> Measured:
    run(min(texts, key=len))  # warm
    started, cpu_started = time.perf_counter(), time.process_time()
    found = [run(text) for text in texts]
    seconds = (time.perf_counter() - started) / len(texts)
    cpu_seconds = (time.process_time() - cpu_started) / len(texts)
    means = [sum(column) / len(texts) for column in zip(*found, strict=True)]
    return Measured(name, seconds, cpu_seconds, *means)


if __name__ == "__main__":
    main()
