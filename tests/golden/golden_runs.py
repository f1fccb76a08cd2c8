"""What the golden runs are, and their records and documents without what a clock says.

``python tests/golden/golden_runs.py NAME...`` (or ``all``) writes the expected files anew: after a
change of behaviour that is meant, and to be read in the difference before it is committed.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

EXPECTED = Path(__file__).parent / "expected"
DIGITS = 7
"""Significant ones that are compared; the runs compute in float64, of which these are exact."""

_EXACT = "--seed 1 --dtype float64 --device cpu --json"
_ENCODER = f"--model ./encoder --data-file reviews.csv {_EXACT}"
_DECODER = f"--model ./decoder --data-file words.csv --max-new-tokens 10 {_EXACT}"
_CAUSAL = f"--model ./causal --data-file words.csv --max-new-tokens 10 {_EXACT}"
_SEARCH = "--top-n 6 --beam-width 2 --per-size 3 --query-budget 60"


@dataclass(frozen=True)
class Golden:
    """A command, and those that must have run before it in the same folder."""

    command: str
    after: tuple[str, ...] = ()
    same_as: str | None = None


RUNS: dict[str, Golden] = {
    "evaluate-encoder": Golden(f"evaluate {_ENCODER} --latency-samples 0"),
    "evaluate-encoder-sweep": Golden(
        f"evaluate {_ENCODER} --latency-samples 0 --sweep --confidence margin --limit 20"
    ),
    "evaluate-decoder": Golden(
        f"evaluate {_DECODER} --latency-samples 0 --confidence softmax --threshold 0.4,0.1"
        " --top-k-propagation none,10 --decay paper --temperature 2"
    ),
    "evaluate-decoder-sweep": Golden(
        f"evaluate {_DECODER} --latency-samples 0 --sweep --limit 12"
        " --confidence saturation,linear,transformer_mlp_64"
    ),
    "evaluate-decoder-free": Golden(
        f"evaluate {_DECODER} --latency-samples 0 --shallow-layer 1 --confidence softmax"
        " --threshold 0.2 --adaptive-threshold --batch-size 4"
    ),
    "predict-encoder": Golden(f"predict --model ./encoder {_EXACT} good,film never.a.dull.plot"),
    "predict-decoder": Golden(f"predict --model ./decoder {_EXACT} queue knight"),
    "attack-encoder": Golden(
        f"attack {_ENCODER} --limit 8 --recipe same-token,same-char,waffle,random,deepwordbug"
        f" {_SEARCH}"
    ),
    "attack-encoder-upstream": Golden(
        f"attack {_ENCODER} --limit 5 --recipe same-token,waffle --compat upstream {_SEARCH}"
    ),
    "attack-encoder-universal": Golden(
        f"attack {_ENCODER} --limit 6 --recipe universal --search-samples 6 --prefix-length 2"
        f" {_SEARCH}"
    ),
    "attack-decoder": Golden(f"attack {_DECODER} --limit 8 --recipe same-token,random {_SEARCH}"),
    "replay-encoder": Golden(
        f"attack --transfer RUN --model ./encoder --defences {_EXACT}", after=("attack-encoder",)
    ),
    "replay-decoder": Golden(
        f"attack --transfer RUN --model ./decoder --defences {_EXACT}", after=("attack-decoder",)
    ),
    "calibrate-encoder": Golden(
        f"calibrate {_ENCODER} --delta 0.4 --epsilon 0.2 --curves --repeats 5 --compare-naive"
        " --deltas 0.2,0.4 --latency-samples 0 --no-store"
    ),
    "calibrate-decoder": Golden(
        f"calibrate {_DECODER} --delta 0.5 --epsilon 0.2 --consistency textual"
        " --confidence softmax,linear --p-value betting --latency-samples 0 --no-store"
        " --metric rouge-l-tokens"
    ),
    "evaluate-causal": Golden(
        f"evaluate {_CAUSAL} --latency-samples 0 --confidence softmax --threshold 0.4,0.1"
        " --top-k-propagation none,10"
    ),
    "evaluate-causal-drafts": Golden(
        f"evaluate {_CAUSAL} --latency-samples 0 --self-speculative --exit-layer 1,2"
        " --draft-tokens 2,3"
    ),
    "predict-causal": Golden(f"predict --model ./causal {_EXACT} --self-speculative queue knight"),
    "attack-causal": Golden(f"attack {_CAUSAL} --limit 6 --recipe same-token,random {_SEARCH}"),
    "attack-causal-drafts": Golden(
        f"attack {_CAUSAL} --limit 6 --recipe same-token,random {_SEARCH} --self-speculative"
        " --exit-layer 2 --score acceptance"
    ),
    "calibrate-causal": Golden(
        f"calibrate {_CAUSAL} --delta 0.5 --epsilon 0.2 --confidence softmax,linear"
        " --latency-samples 0 --no-store"
    ),
    "train-causal": Golden(
        "train --model layerskip --backbone ./causal --data-file words.csv --epochs 1"
        f" --batch-size 8 --layer-dropout 0 --output leaps {_EXACT}"
    ),
    "calibrate-losses": Golden(
        "calibrate --losses losses.csv --test-share 0.5 --delta 0.2 --seed 1 --json"
    ),
    "train-encoder": Golden(
        "train --model deebert --backbone ./backbone --data-file reviews.csv --epochs 1"
        f" --batch-size 8 --head-dropout 0 --output trained {_EXACT}"
    ),
    "train-decoder": Golden(
        "train --model calm --backbone ./decoder --data-file words.csv --epochs 1 --batch-size 8"
        f" --dropout 0 --output spells {_EXACT}"
    ),
    "train-classifiers": Golden(
        "train --model calm --backbone ./decoder --confidence linear,mlp --data-file words.csv"
        f" --epochs 1 --batch-size 8 --output sure {_EXACT}"
    ),
}

ENGINES = {
    "workers": (
        "--workers 2",
        (
            "attack-encoder", "attack-encoder-universal", "attack-decoder", "attack-causal-drafts",
            "evaluate-encoder-sweep",
            "evaluate-decoder", "evaluate-decoder-sweep", "evaluate-decoder-free",
            "evaluate-causal-drafts", "calibrate-encoder", "calibrate-decoder",
            "calibrate-causal",
        ),
    ),
    "ray": (
        "--engine ray --workers 2",
        (
            "attack-encoder", "attack-encoder-universal", "evaluate-decoder",
            "evaluate-encoder-sweep", "calibrate-causal",
        ),
    ),
}  # fmt: skip
"""Who else must come to the same, and in which runs. (What top-k propagation costs depends on which
rows are scored together, as at another batch size.)"""

RUNS |= {
    f"{name}-{engine}": Golden(f"{RUNS[name].command} {options}", same_as=name)
    for engine, (options, names) in ENGINES.items()
    for name in names
}

_CLOCK = re.compile(r"seconds|latency|throughput|timing|_ms(_|$)|^time|per_second")
_SAYS_WHERE_AND_WHEN = {"run_id", "created", "environment", "timings"}


def made_in(folder: Path) -> None:
    """The models and data that the runs name."""
    import golden_models as models

    models.write_encoder(folder / "encoder")
    models.write_backbone(folder / "backbone")
    models.write_decoder(folder / "decoder")
    models.write_causal(folder / "causal")
    models.write_reviews(folder / "reviews.csv")
    models.write_words(folder / "words.csv")
    models.write_losses(folder / "losses.csv")


def outcome(name: str, folder: Path, done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run one (and before it those that it needs): its document and its records, told plainly.

    Args:
        name: of :data:`RUNS`.
        folder: with the models; runs go below it.
        done: documents of the runs that were made there, by name; gets this one.
    """
    from eexit_cli.main import main

    golden = RUNS[name]
    for earlier in golden.after:
        if earlier not in done:
            outcome(earlier, folder, done)
    words = [
        done[golden.after[0]]["run_id"]
        if word == "RUN"
        else word.replace(".", " ")
        if golden.command.startswith("predict") and not word.startswith(("-", "."))
        else word
        for word in golden.command.split()
    ]
    said, before = StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(said):
            code = main(words)
    finally:
        os.chdir(before)
    assert code == 0, f"{name}: exit code {code}"
    document = json.loads(said.getvalue())
    done[name] = document
    records: list[dict[str, Any]] = []
    if "run_id" in document:
        lines = folder / "results" / document["run_id"] / "records.jsonl"
        if lines.exists():
            records = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    runs = {one["run_id"]: f"<{known}>" for known, one in done.items() if "run_id" in one}
    records.sort(key=lambda record: json.dumps([record.get("recipe"), record.get("id")]))
    return {"document": plain(document, runs), "records": plain(records, runs)}


def plain(value: Any, runs: dict[str, str]) -> Any:
    """Without clocks, run ids and the last digits."""
    if isinstance(value, dict):
        return {
            str(plain(key, runs)): plain(inner, runs)
            for key, inner in value.items()
            if key not in _SAYS_WHERE_AND_WHEN and not _CLOCK.search(key)
        }
    if isinstance(value, list):
        return [plain(inner, runs) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0
    if isinstance(value, str):
        for run, name in runs.items():
            value = value.replace(run, name)
    return value


def written(told: dict[str, Any]) -> str:
    """As the expected files hold it: a record or a row per line, so that differences read well.

    Objects are sorted: the order of their names says nothing.
    """
    lines = ["{", '"document": {']
    document = told["document"]
    entries = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n  ".join(
                json.dumps(row, ensure_ascii=False, sort_keys=True) for row in value
            )
            entries.append(f"{json.dumps(key)}: [\n  {rows}\n]")
        elif isinstance(value, dict):
            inner = ",\n  ".join(
                f"{json.dumps(name)}: {json.dumps(item, ensure_ascii=False, sort_keys=True)}"
                for name, item in sorted(value.items())
            )
            entries.append(f"{json.dumps(key)}: {{\n  {inner}\n}}")
        else:
            entries.append(
                f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}"
            )
    lines.append(",\n".join(entries))
    records = ",\n  ".join(
        json.dumps(record, ensure_ascii=False, sort_keys=True) for record in told["records"]
    )
    lines += ["},", f'"records": [\n  {records}\n]' if records else '"records": []', "}"]
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Write the expected files of these runs."""
    import tempfile

    os.environ["HF_HUB_OFFLINE"] = "1"
    chosen = [name for name in RUNS if names == ["all"] or name in names]
    EXPECTED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EEXIT_HOME"] = str(Path(folder) / "home")
        made_in(Path(folder))
        done: dict[str, dict[str, Any]] = {}
        for name in chosen:
            if RUNS[name].same_as is None:
                text = written(outcome(name, Path(folder), done))
                (EXPECTED / f"{name}.json").write_text(text, encoding="utf-8")
                print(name, len(text))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(sys.argv[1:])
