"""``eexit results``"""

from __future__ import annotations

import shlex

from eexit_cli.config.results import ExportConfig, ListConfig, ShowConfig
from eexit_cli.ui.groups import add, group
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

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
    from eexit_cli.core.types import RunResult
    from eexit_cli.store.results import ResultStore
    from eexit_cli.store.unfinished import finished_document
    from eexit_cli.ui.screens import show_result

    opened = ResultStore(config.results_dir).open(config.run)
    show_result(output, RunResult(finished_document(opened), opened.path))


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


app = group("See the runs of the result folder.", EXAMPLES)
add(app, "list", list_runs, EXAMPLES)
add(app, "show", show_run, EXAMPLES)
add(app, "export", export_run, EXAMPLES)
