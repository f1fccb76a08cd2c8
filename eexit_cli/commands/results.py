"""``eexit results``"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from eexit_cli.config.results import ExportConfig, ListConfig, ShowConfig
from eexit_cli.ui.groups import add, group
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

if TYPE_CHECKING:
    from eexit_cli.store.results import Run

EXAMPLES = """
Examples:
  eexit results list
  eexit results show latest
  eexit results show RUN --format latex
  eexit results export RUN --output adversarial --with-originals
"""


@from_config(ListConfig)
def list_runs(config: ListConfig, output: Output) -> None:
    """List the runs of the result folder, the newest first."""
    from eexit_cli.store.results import ResultStore
    from eexit_cli.ui.screens.listings import runs

    found = ResultStore(config.results_dir).list()
    sheet = runs([run for run in found if config.command in (None, run.command)])
    ids = [row["run"] for row in sheet.rows]
    if output.result({"runs": list(sheet.rows)}, sheet, *ids) and not ids:
        output.hint(f"No run in '{config.results_dir}' yet. Start with: eexit attack")


@from_config(ShowConfig)
def show_run(config: ShowConfig, output: Output) -> None:
    """Show a finished run as its command showed it."""
    from eexit_cli.core.errors import MissingArtifactError
    from eexit_cli.core.types import RunResult
    from eexit_cli.store.results import ResultStore
    from eexit_cli.ui.screens import show_result

    opened = ResultStore(config.results_dir).open(config.run)
    document = opened.document()
    if document is None:
        raise MissingArtifactError(f"Run '{opened.id}' is not finished", hint=_resumption(opened))
    show_result(output, RunResult(document, opened.path))


@from_config(ExportConfig)
def export_run(config: ExportConfig, output: Output) -> None:
    """Write an attack's inputs as a data set: for datasets, or for eexit train --data-file."""
    with output.progress() as progress:
        from eexit_cli.pipelines.export import run_export

        written = run_export(config, progress=progress)
    if output.as_json:
        output.document(written)
        return
    output.lines([written["folder"], written["file"]])
    file, model = shlex.quote(written["file"]), shlex.quote(written["model"])
    output.hint(f"Next: eexit train --data-file {file} --backbone {model} --output hardened")


_RESUMPTIONS = {
    "attack": "Go on with: eexit attack --resume {id}",
    "calibrate": "Go on with: eexit calibrate --resume {id}",
    "train": "Go on with: eexit train --output {output} --resume",
}
"""How an unfinished run goes on, by its command; the others start again."""


def _resumption(run: Run) -> str:
    replayed = run.config.get("transfer")
    if replayed:
        options = " ".join(f"--transfer {name}" for name in replayed)
        return f"Start it again: eexit attack {options} --model {run.config['model']}"
    hint = _RESUMPTIONS.get(run.command, "Start it again: eexit {command}")
    return hint.format(command=run.command, id=run.id, **run.config)


app = group("See the runs of the result folder.", EXAMPLES)
add(app, "list", list_runs, EXAMPLES)
add(app, "show", show_run, EXAMPLES)
add(app, "export", export_run, EXAMPLES)
