"""What other exits than the attacked one recover, replayed on the attacker's texts.

The attacker did not know of them: what they hold off here, an attack that does know may still take.

- more patience: agreement over more layers than before;
- voting over exits, at the threshold that leaves clean inputs about where they left before;
- the attacked criterion recalibrated on attacked inputs: from the most cautious setting on, the
  last one before early answers first contradict the full model's more often than they did on
  clean inputs. Nothing beyond the first failure is looked at, so that no eager setting gets in by
  luck.

The halves that recalibration needs are halves of the attacked samples: the samples of each are
judged by the rule that was chosen on the other, and the row is over both. So two rules stand behind
one row; neither was chosen on the samples that it is judged on (but where a half is empty), and
both were chosen on inputs of this very attack. The choice goes by the share that was measured; it
promises nothing, as ``eexit calibrate`` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from eexit_cli.confidence import MEASURES
from eexit_cli.core.protocols import ExitCriterion
from eexit_cli.core.seed import stream
from eexit_cli.core.stepping import replay
from eexit_cli.core.types import Decision
from eexit_cli.families.encoder.exits import criterion_from, threshold_grid

NONE = "none"


@dataclass(frozen=True)
class Traces:
    """Every exit's logits of the same samples before and after an attack.

    Attributes:
        before, after: Shape: [samples, exits, classes].
        ids: of the samples.
    """

    before: Tensor
    after: Tensor
    ids: tuple[str, ...]

    @property
    def num_layers(self) -> int:
        return int(self.before.shape[1])

    @property
    def num_classes(self) -> int:
        return int(self.before.shape[2])


@dataclass(frozen=True)
class Outcome:
    """What a criterion does with traced samples.

    Attributes:
        defence: its name in the table; ``none`` is the model's own exit.
        rules: the rule that each sample left by.
        settings: of each rule that was used: one, or one per half.
        before, after: where samples left and with what answer.
    """

    defence: str
    rules: tuple[ExitCriterion, ...]
    settings: tuple[dict[str, Any], ...]
    before: Decision
    after: Decision


def undefended(traces: Traces, criterion: ExitCriterion) -> Outcome:
    """The model's own exit."""
    return _outcome(NONE, traces, criterion)


def defences(traces: Traces, criterion: ExitCriterion, *, seed: int) -> Iterator[Outcome]:
    """Each defence on the same samples.

    Args:
        traces: of the samples.
        criterion: the exit that is defended.
        seed: halves the samples, by their ids.
    """
    own = undefended(traces, criterion)
    depth = _depth(own.before)
    for patience in _patiences(traces, criterion, depth):
        yield _outcome("patience", traces, patience)
    voting = [
        _made(traces, {"criterion": "voting", "threshold": math.sqrt(layer)})
        for layer in range(1, traces.num_layers + 1)
    ]
    nearest = min(voting, key=lambda rule: abs(_depth(replay(traces.before, rule)) - depth))
    yield _outcome("voting", traces, nearest)
    recalibrated = _recalibrated(traces, criterion, own, seed)
    if recalibrated is not None:
        yield recalibrated


def _patiences(traces: Traces, criterion: ExitCriterion, depth: float) -> list[ExitCriterion]:
    """One and two more than it has; for others, the one that is as deep on clean inputs, and one
    more."""
    described = criterion.describe()
    # L - 1 is the full model.
    values = range(1, traces.num_layers - 1)
    rules = {n: _made(traces, {"criterion": "patience", "patience": n}) for n in values}
    if not rules:
        return []
    if described["criterion"] == "patience":
        first = int(described["patience"]) + 1
    else:
        first = min(rules, key=lambda n: abs(_depth(replay(traces.before, rules[n])) - depth))
    return [rules[n] for n in (first, first + 1) if n in rules]


def _recalibrated(
    traces: Traces, criterion: ExitCriterion, own: Outcome, seed: int
) -> Outcome | None:
    rules = _cautious_to_eager(traces, criterion)
    if not rules:
        return None
    first = halves(traces.ids, seed)
    tolerated = _contradictions(traces.before, own.before)
    wrong = [_contradictions(traces.after, replay(traces.after, rule)) for rule in rules]
    before, after, chosen = own.before, own.after, []
    for judged in (~first, first):
        half = other_half(judged)
        allowed = tolerated[half].mean()
        at = eagerest(bool(each[half].mean() <= allowed) for each in wrong)
        chosen.append(rules[at])
        before = _take(judged, replay(traces.before, rules[at]), before)
        after = _take(judged, replay(traces.after, rules[at]), after)
    return Outcome(
        "recalibrated",
        tuple(chosen[int(part)] for part in first),
        tuple(rule.describe() for rule in chosen),
        before,
        after,
    )


def halves(ids: Sequence[str], seed: int) -> Tensor:
    """Which samples are of the first half: by their ids alone. Shape: [samples]."""
    return torch.tensor([stream(seed, "half", name).random() < 0.5 for name in ids])


def other_half(judged: Tensor) -> Tensor:
    """The samples to choose on; of few samples a half may be empty, and then it is these."""
    return ~judged if bool((~judged).any()) else judged


def eagerest(fits: Iterable[bool]) -> int:
    """The last setting before the first that does not fit, of settings from cautious to eager.

    The order of fixed-sequence testing (Angelopoulos et al., 2021, arXiv:2110.01052): what lies
    beyond the first failure is not looked at.

    Returns:
        Its place; 0 where even that one fails: nothing is more cautious.
    """
    return max(0, sum(1 for _ in takewhile(bool, fits)) - 1)


def _cautious_to_eager(traces: Traces, criterion: ExitCriterion) -> list[ExitCriterion]:
    """The criterion's own kind at every setting; none for a kind without any."""
    described = criterion.describe()
    kind = str(described["criterion"])
    settings: list[dict[str, Any]] = []
    if kind == "threshold":
        name = described["confidence"]
        grid = threshold_grid(MEASURES.load(name), traces.num_classes)
        settings = [{"criterion": kind, "confidence": name, "threshold": x} for x in grid]
    if kind == "patience":
        layers = range(traces.num_layers - 1, 0, -1)
        settings = [{"criterion": kind, "patience": n} for n in layers]
    if kind == "voting":
        layers = range(traces.num_layers, 0, -1)
        settings = [{"criterion": kind, "threshold": math.sqrt(n)} for n in layers]
    return [_made(traces, each) for each in settings]


def _made(traces: Traces, settings: dict[str, Any]) -> ExitCriterion:
    return criterion_from(settings, num_layers=traces.num_layers, num_classes=traces.num_classes)


def _outcome(name: str, traces: Traces, criterion: ExitCriterion) -> Outcome:
    return Outcome(
        name,
        (criterion,) * len(traces.ids),
        (criterion.describe(),),
        replay(traces.before, criterion),
        replay(traces.after, criterion),
    )


def _contradictions(logits: Tensor, decision: Decision) -> Tensor:
    """1 where the answer is not the full model's. Shape: [samples]."""
    return (logits[:, -1].argmax(dim=-1) != decision.predictions).double()


def _take(rows: Tensor, new: Decision, old: Decision) -> Decision:
    return Decision(
        torch.where(rows, new.exit_layers, old.exit_layers),
        torch.where(rows[:, None], new.logits, old.logits),
    )


def _depth(decision: Decision) -> float:
    return float(decision.exit_layers.double().mean())


def described(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row's account of the rule, or of the two that the halves chose: ``<name>_low`` and
    ``_high`` where they differ."""
    found: dict[str, Any] = {}
    for name, value in settings[0].items():
        values = [each[name] for each in settings]
        if isinstance(value, (str, bool)) or len(set(values)) == 1:
            found[name] = value
        else:
            found |= {f"{name}_low": min(values), f"{name}_high": max(values)}
    return found
