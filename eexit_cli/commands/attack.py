"""``eexit attack``"""

from __future__ import annotations

from typing import Annotated

import typer

from eexit_cli.config import AttackConfig
from eexit_cli.config.field import ATTACK
from eexit_cli.ui import catalogs
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

EXAMPLES = """
Examples:
  eexit attack --model deebert
  eexit attack --model pabee --recipe same-char --limit 50
  eexit attack --model owner/name --threshold 0.19 --task sst2 --data-dir glue_data/SST-2
  eexit attack --model deebert --recipe all --query-budget 1000 --workers 2
  eexit attack --transfer latest --model pabee --defences
  eexit attack --resume latest
"""


_LIST_RECIPES = typer.Option(
    "--list-recipes",
    rich_help_panel=ATTACK,
    show_envvar=False,
    envvar="EEXIT_LIST_RECIPES",
    help="Show the recipes and stop.",
)


@from_config(AttackConfig)
def attack(
    config: AttackConfig,
    output: Output,
    explicit: frozenset[str],
    list_recipes: Annotated[bool, _LIST_RECIPES] = False,
) -> None:
    """Slow a model down: change a few words so that its early exits stay shut."""
    if list_recipes:
        from rich.text import Text

        from eexit_cli.ui.screens.listings import how_to_get, recipes

        found = catalogs.entries("recipe")
        sheet = recipes(found, catalogs.problems("recipe"))
        names = [recipe.name for recipe in found]
        if output.result({"recipes": list(sheet.rows)}, sheet, *names):
            for line in how_to_get(sheet):
                output.say(Text(line, style="dim"))
        return
    from eexit_cli.ui.screens.attack import show_attack

    with output.progress() as progress:
        progress.message(_begun(config))
        from eexit_cli.pipelines.attack.run import run_attack

        result = run_attack(config, progress=progress, explicit=explicit)
    show_attack(output, result)


def _begun(config: AttackConfig) -> str:
    if config.resume:
        return f"Resuming {config.resume}"
    if config.transfer:
        return f"Replaying {', '.join(config.transfer)} on {config.model}"
    return f"Attacking {config.model} with {config.recipe.replace(',', ', ')}"
