"""``eexit models``"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from eexit_cli.config.results import ConvertConfig, ModelConfig
from eexit_cli.config.runtime import ExportModelConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.ui.groups import add, group
from eexit_cli.ui.output import Output
from eexit_cli.ui.signature import from_config

if TYPE_CHECKING:
    from eexit_cli.store.models import ModelSummary

EXAMPLES = """
Examples:
  eexit models list
  eexit models show deebert
  eexit models export deebert --weights int8 --output deploy8
  eexit models convert ee-llm/checkpoints --tokenizer llama --output ee-llm-1b
"""


@from_config()
def list_models(output: Output) -> None:
    """List the models that --model takes by name."""
    from eexit_cli.families import listing
    from eexit_cli.ui.screens.listings import models

    found = listing.list_models()
    sheet = models(found)
    names = [summary.name for summary in found]
    if output.result({"models": list(sheet.rows)}, sheet, *names) and not names:
        output.hint("No model here yet. Train one: eexit train --output my-model")


@from_config(ModelConfig)
def show_model(config: ModelConfig, output: Output) -> None:
    """Show one model: its layers, its classes, its default exit criterion, its calibrations."""
    from eexit_cli.ui.screens.listings import calibrations, model_facts, properties

    summary = _summary(config.model)
    facts, kept = model_facts(summary), _calibrations(summary)
    sheet = properties(facts)
    if output.result({**facts, "calibrations": list(kept)}, sheet, str(facts["path"])) and kept:
        output.sheet(calibrations(kept))
        output.hint(f"The one taken: eexit evaluate --model {config.model} --threshold calibrated")
        output.hint("Another:       --threshold calibrated:RUN")


def _calibrations(summary: ModelSummary) -> list[dict[str, Any]]:
    """What is stored with a model, oldest first, without the samples' digests.

    Raises:
        EexitError: the file that keeps them is damaged.
    """
    from dataclasses import asdict

    from eexit_cli.store.calibrations import listed
    from eexit_cli.store.models import ModelRef

    if summary.path is None:
        return []
    reference = ModelRef(name=summary.name, kind=summary.kind, path=summary.path)
    try:
        found = listed(reference, summary.path)
    except MissingArtifactError:
        return []  # a listing shows what is there; without weights nothing can be calibrated
    rows = [{**asdict(entry), "state": state} for entry, state in found]
    return [{name: row[name] for name in row if name != "texts"} for row in rows]


def _summary(name: str) -> ModelSummary:
    """What is known of a model without loading it.

    Raises:
        UsageError, MissingArtifactError: no such model, or one that is only on the hub.
        EexitError: a folder that is no multi-exit model.
    """
    from eexit_cli.families.listing import list_models as find_models
    from eexit_cli.families.listing import summarise
    from eexit_cli.store.models import resolve

    reference = resolve(name)
    if reference.path is None:
        cached = [summary for summary in find_models() if summary.name == reference.repo_id]
        if not cached:
            raise MissingArtifactError(
                f"'{name}' is not on this machine", hint=f"Fetch it: eexit evaluate --model {name}"
            )
        return cached[0]
    summary = summarise(reference.name, reference.kind, reference.path)
    if summary is None:
        raise EexitError(
            f"'{name}' is not a multi-exit model",
            hint=f"Train one from it: eexit train --backbone {name} --output FOLDER",
        )
    return summary


@from_config(ConvertConfig)
def convert_model(config: ConvertConfig, output: Output) -> None:
    """Make a model folder of another project's checkpoint: EE-LLM's, as Megatron writes it."""
    from eexit_cli.families.converting import convert
    from eexit_cli.ui.screens.listings import properties

    if config.output is None:
        raise UsageError("No --output is given", hint="Name the new model's folder: --output DIR")
    facts = convert(config.checkpoint, config.output, config.tokenizer)
    if output.result(facts, properties(facts), str(config.output)):
        output.hint(f"Next: eexit evaluate --model {config.output} --sweep")


@from_config(ExportModelConfig)
def export_model(config: ExportModelConfig, output: Output) -> None:
    """Make one ONNX file of a classifier, that leaves early wherever ONNX Runtime runs."""
    from eexit_cli.ui.screens.listings import properties

    with output.progress() as progress:
        from eexit_cli.families.exporting import export_model as export

        facts = export(config, progress)
    if output.result(facts, properties(facts), str(config.output)):
        output.hint(f"Next: eexit evaluate --model {shlex.quote(str(config.output))}")


app = group("See the models that --model takes by name.", EXAMPLES)
add(app, "list", list_models, EXAMPLES)
add(app, "show", show_model, EXAMPLES)
add(app, "convert", convert_model, EXAMPLES)
add(app, "export", export_model, EXAMPLES)
