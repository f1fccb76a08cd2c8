"""An attack's inputs as a data set, to look at with ``datasets`` or to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eexit_cli.config.results import ExportConfig
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.folders import whole_folder
from eexit_cli.core.progress import SilentProgress
from eexit_cli.data import task_info
from eexit_cli.families.class_names import classes_of
from eexit_cli.pipelines.attack.subject import pair_of
from eexit_cli.store.results import ResultStore, Run

if TYPE_CHECKING:
    from eexit_cli.core.protocols import Progress

TABLE = "adversarial.parquet"


def run_export(config: ExportConfig, *, progress: Progress | None = None) -> dict[str, Any]:
    """Write an attack's adversarial examples to a folder.

    The folder is one of the ``datasets`` library (``datasets.load_from_disk``), and holds the same
    rows as a Parquet file; ``eexit train --data-file`` reads either. A row has ``text`` (as the
    attacker left it), ``text_pair`` for pairs, ``label`` (the class's name), ``id``, ``recipe``,
    ``kind`` (adversarial or original), ``original_text`` (and ``original_text_pair``), ``split``
    (where the original is from), ``exit_layer_before`` and ``_after``, ``prediction_before`` and
    ``_after``. Inputs that no attack changed are left out.

    Args:
        config: the run is a finished attack; the folder must not exist, or be empty; the originals
            come once each.
        progress: told how many there are, and what a model trained on them says nothing of.

    Returns:
        ``run_id``, ``model`` (that was attacked), ``folder``, ``file``, ``split``, ``rows``,
        ``adversarial``, ``slower`` (of these), ``originals``.

    Raises:
        UsageError: not an attack on a classifier, nothing to export, or a folder that is in use.
        EexitError: the run is not finished.
    """
    progress, folder = progress or SilentProgress(), config.output
    store = ResultStore(config.results_dir)
    run = store.open(config.run, command="attack")
    if run.config.get("transfer"):
        raise UsageError(
            f"Run '{run.id}' replays another run's inputs",
            hint="Export that one: eexit results export " + " or ".join(run.config["transfer"]),
        )
    if run.document() is None:
        raise EexitError(
            f"Run '{run.id}' is not finished", hint=f"Go on with: eexit attack --resume {run.id}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"'{folder}' is not empty", hint="Choose a folder that does not exist yet: --output"
        )
    adversarial, clean = _rows(run)
    slower = [row for row in adversarial if row["exit_layer_after"] > row["exit_layer_before"]]
    changed, adversarial = adversarial, slower if config.only_slower else adversarial
    if not adversarial:
        what = "slowed no input down" if changed else "changed no input"
        raise UsageError(
            f"Run '{run.id}' {what}, so there is nothing to export",
            hint="Attack more samples, or with another recipe",
        )
    rows = [*(clean if config.with_originals else []), *adversarial]
    _write(rows, folder)
    progress.message(
        f"{len(adversarial)} attacked inputs of run {run.id}, {len(slower)} of them slower than "
        "their originals"
    )
    if _split(run) != "train":
        progress.message(
            f"These come from {_source(run)}; a model trained on them must not be reported on it: "
            "attack --split train"
        )
    return {
        "run_id": run.id,
        "model": str(run.config["model"]),
        "folder": str(folder),
        "file": str(folder / TABLE),
        "split": _split(run),
        "rows": len(rows),
        "adversarial": len(adversarial),
        "slower": len(slower),
        "originals": len(clean) if config.with_originals else 0,
    }


def _split(run: Run) -> str:
    """Where the attacked samples are from; a file without a split was attacked as a whole."""
    return str(run.config.get("split") or "test")


def _source(run: Run) -> str:
    if run.config.get("data_file") and _split(run) == "test":
        return f"the whole of {Path(run.config['data_file']).name}"
    return f"the {_split(run)} split"


def _rows(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Changed inputs, one per recipe and sample, and each sample as it was, once."""
    names, split = _label_names(run), _split(run)
    adversarial: dict[tuple[str, str], dict[str, Any]] = {}
    clean: dict[str, dict[str, Any]] = {}
    for record in run.records():
        recipe, identifier = str(record.get("recipe", run.config.get("recipe"))), record["id"]
        label = record.get("label")
        shared = {"label": None if label is None else names[int(label)]}
        before = {name: record[f"{name}_before"] for name in ("exit_layer", "prediction")}
        original = {
            "id": identifier,
            "kind": "original",
            "recipe": "",
            "text": record["text"],
            **({"text_pair": record["text_pair"]} if "text_pair" in record else {}),
            **shared,
            "original_text": record["text"],
            **({"original_text_pair": record["text_pair"]} if "text_pair" in record else {}),
            "split": split,
            **{f"{name}_{when}": before[name] for name in before for when in ("before", "after")},
        }
        clean.setdefault(identifier, original)
        pair = pair_of(record, "perturbed_text")
        if (record["perturbed_text"], pair) == (record["text"], record.get("text_pair")):
            continue
        adversarial.setdefault(
            (recipe, identifier),
            {
                **original,
                "id": f"{identifier}-{recipe}",
                "kind": "adversarial",
                "recipe": recipe,
                "text": record["perturbed_text"],
                **({} if pair is None else {"text_pair": pair}),
                "exit_layer_after": record["exit_layer_after"],
                "prediction_after": record["prediction_after"],
            },
        )
    return list(adversarial.values()), list(clean.values())


def _label_names(run: Run) -> list[str]:
    """The classes of the run's task.

    Raises:
        UsageError: its inputs have none.
    """
    names = list(classes_of(run))
    if not names and run.config.get("task") and not run.config.get("data_file"):
        names = list(task_info(str(run.config["task"])).label_names)
    if not names:
        raise UsageError(
            f"Run '{run.id}' attacked no classifier, so its inputs have no classes to train on",
            hint="Export an attack on a classifier: eexit results list --command attack",
        )
    return names


def _write(rows: list[dict[str, Any]], folder: Path) -> None:
    """The folder is there whole or not at all."""
    import datasets

    table = datasets.Dataset.from_list(rows)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bar()
    try:
        with whole_folder(folder) as made:
            table.save_to_disk(str(made))
            table.to_parquet(str(made / TABLE))
    finally:
        if shown:
            datasets.enable_progress_bar()
