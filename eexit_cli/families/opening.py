"""A model's name becomes a :class:`~eexit_cli.core.family.Model` here, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from eexit_cli.config.field import refuse_unread
from eexit_cli.core.errors import UsageError
from eexit_cli.families.listing import family_with
from eexit_cli.families.loading import folder_of
from eexit_cli.models.checkpoints import read_config
from eexit_cli.store.models import resolve

if TYPE_CHECKING:
    from eexit_cli.core.family import Family, Model
    from eexit_cli.core.protocols import Progress


def family_of(name: str) -> Family:
    """The family of what ``--model NAME`` means, read from its ``config.json`` alone.

    A hub repository that is not in the cache is fetched, as loading it would.

    Raises:
        UsageError, MissingArtifactError, EexitError: names and folders that mean no model.
    """
    return family_with(read_config(folder_of(resolve(name))))


def open_model(
    config: Any, *, progress: Progress | None = None, explicit: Collection[str] = ()
) -> Model:
    """Load what ``config.model`` names: a bundled model, a local folder or a hub repository.

    Args:
        config: any configuration of a command.
        progress: told how an upstream checkpoint was read.
        explicit: options that were given, even where they say what is the default.

    Raises:
        UsageError: an unknown name, device or dtype, a length outside the model's range, or an
            option that its family does not read.
        MissingArtifactError: a folder or repository that is not there, or has no tokenizer.
        EexitError: the folder is no model or is damaged.
    """
    family = family_of(config.model)
    refuse_unread(config, family.name, model=config.model, explicit=explicit)
    model = family.load(config, progress=progress)
    if progress is not None:
        _tell_measures(model, getattr(config, "confidence", None), progress)
    return model


def _tell_measures(model: Model, asked: str | tuple[str, ...] | None, progress: Progress) -> None:
    """One name means different measures in different papers: say which one a model has for it."""
    for name in asked.split(",") if isinstance(asked, str) else asked or ():
        # What is unknown is refused where it is used.
        with suppress(UsageError):
            found = model.measure(name)
            if name.lower().replace("_", "-") != found.replace("_", "-"):
                progress.message(f"The confidence '{name}' is {found} on {model.name}")
