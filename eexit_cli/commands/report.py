"""``eexit report``"""

from __future__ import annotations

from eexit_cli.config.report import ReportConfig
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit report
  eexit report latest --output attack.html
  eexit report RUN OTHER-RUN --title "Two models under attack"
"""


@from_config(ReportConfig)
def report(config: ReportConfig, output: Output) -> None:
    """Write finished runs as one page: tables, figures and samples, to read, print or send."""
    with output.progress() as progress:
        from eexit_cli.pipelines.report import run_report
        from eexit_cli.ui.report.page import render_page

        path = run_report(
            config, page=lambda contents: render_page(config, contents), progress=progress
        )
    if output.as_json:
        output.document({"file": str(path)})
    else:
        output.lines([str(path)])
