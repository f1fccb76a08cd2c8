"""``eexit tasks``"""

from __future__ import annotations

from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit tasks
  eexit tasks --json
  eexit evaluate --model deebert --task tweets
"""


@from_config()
def tasks(output: Output) -> None:
    """List the data sets that --task takes by name."""
    from eexit_cli.data.catalogue import describe_tasks
    from eexit_cli.ui.screens import listings

    found = describe_tasks()
    names = [row["task"] for row in found]
    if output.result({"tasks": found}, listings.tasks(found), *names):
        output.hint(
            "Bundled sets need nothing; the others come from the hub, or from its cache. Your own "
            "data: --data-file FILE"
        )
