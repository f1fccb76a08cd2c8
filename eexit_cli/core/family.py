"""What a family of models provides, and all that the use cases know of a model.

A family puts components together into a :class:`Model`; pipelines put models to use and name no
family. The cut is :meth:`Model.answers`: evaluation is answers under a few exits and their metrics,
calibration is answers along a scale and their losses, a replay is answers to an attack's texts.
How answers are made is the family's: an encoder replays one trace for every exit, a generator
decodes once per exit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from eexit_cli.core.answers import Answers, Exit, Knob
from eexit_cli.core.protocols import Crew, Progress
from eexit_cli.core.types import Examples, TaskInfo

if TYPE_CHECKING:
    from eexit_cli.core.victim import Attacked


class Inputs(Protocol):
    """Samples as a model reads them; whatever it computed of them is kept here."""

    def __len__(self) -> int: ...


class Evaluation(Protocol):
    """A model on labelled samples; each exit is run once, whatever is asked of it.

    Attributes:
        timings: names to seconds, of what was run so far.
    """

    @property
    def timings(self) -> dict[str, float]: ...

    def figures(self, exit: Exit, *, progress: Progress) -> dict[str, Any]:
        """Flat metrics of an exit, the task's first: quality, depth, work."""
        ...

    def beside(self, exit: Exit) -> dict[str, Any]:
        """What stands beside the figures of the chosen exit alone: the full model's, and counts."""
        ...

    def records(self, exit: Exit) -> Iterable[dict[str, Any]]:
        """One JSON-ready record per sample."""
        ...

    def speeds(
        self, exits: Sequence[Exit], *, swept: bool, meter: Any = None
    ) -> dict[Exit, dict[str, Any]]:
        """Measured wall-clock of each exit, all of them and the full model in turn.

        Args:
            exits: the chosen one comes first.
            swept: they are so many that only the chosen one is timed in full.
            meter: a ``metrics.counters.Meter``, which measures joules of what is timed one by one.
        """
        ...


class Model(Protocol):
    """A model that is ready to run.

    Attributes:
        family: the name of its family, of ``families.FAMILIES``.
        kind: :data:`~eexit_cli.core.answers.CLASSES` or ``TEXTS``.
        name: as the user gave it.
        folder: where its files lie.
        num_layers: L; exit layers count from 1 to this.
        max_length: tokens per input, special tokens included; longer ones are cut.
        exit_defaults: the exit used when the user gives none; empty is the full model.
        trained_on: the task that it was trained on, where known.
        source_prefix: text before each input that it was trained with; None where nothing says.
        label_names: one per class, empty for regression; None where outputs are texts.
        tokenizer, device, dtype: as loaded.
        answers_once: one pass over inputs answers every exit; else each exit is a pass of its own.
    """

    @property
    def family(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def ref(self) -> Any: ...
    @property
    def folder(self) -> Path: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def exit_defaults(self) -> dict[str, Any]: ...
    @property
    def trained_on(self) -> str | None: ...
    @property
    def source_prefix(self) -> str | None: ...
    @property
    def label_names(self) -> tuple[str, ...] | None: ...
    @property
    def answers_once(self) -> bool: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def device(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...

    def own_data(self, config: Any, progress: Progress) -> Any:
        """The configuration with the model's task, or held-out data, where nobody says.

        Raises:
            UsageError, MissingArtifactError: as ``families.data.own_samples``.
        """
        ...

    def examples(self, config: Any, *, default_split: str, progress: Progress) -> Examples:
        """Samples that fit the model, without those that it was trained on.

        Args:
            config: as :meth:`own_data` returns it.

        Raises:
            UsageError: data that do not fit.
            MissingArtifactError: data that are not there.
        """
        ...

    def prefix(self, info: TaskInfo | None) -> str:
        """What stands before each text.

        Args:
            info: the task; None where texts are typed in.
        """
        ...

    def conditions(self, prefix: str) -> dict[str, Any]:
        """What a promise on this model holds for beside weights, tokenizer, dtype and length.

        Args:
            prefix: what stands before each text.
        """
        ...

    def measure(self, name: str) -> str:
        """The registered name of a confidence measure on this model's exits.

        Raises:
            UsageError: an unknown one, or another family's.
        """
        ...

    def exit(self, options: Any) -> Exit:
        """The exit that the options ask for, or else the model's own.

        Raises:
            UsageError: options that exclude each other or do not fit the model.
        """
        ...

    def exit_from(self, described: Mapping[str, Any]) -> Exit:
        """An exit from its description: ``exit_defaults``, a row, a run's document.

        Raises:
            UsageError: a value outside the model's range.
        """
        ...

    def default_exit(self) -> Exit:
        """The model's own; all layers where it stores none."""
        ...

    def full(self) -> Exit:
        """All layers: what every exit is compared with."""
        ...

    def grid(self, measures: Sequence[str], options: Any) -> list[Exit]:
        """Every exit of a sweep, each criterion from cautious to eager.

        Args:
            measures: only thresholds on these; none takes all that the model has, and the
                criteria without one.
            options: what stays the same beside.
        """
        ...

    def knobs(self, config: Any) -> list[Knob]:
        """What a calibration turns: one knob for each measure asked for, or else the model's own.

        Args:
            config: ``config.calibrate.CalibrateConfig``.

        Raises:
            UsageError: a criterion without a number to calibrate, options that contradict each
                other, a model whose losses have no bound, or values out of range or order.
        """
        ...

    def check_attackable(self, exit: Exit) -> None:
        """Can inputs be searched that make this exit leave late?

        Raises:
            UsageError: it depends on more than the input, or has no measure to move.
        """
        ...

    def with_stored(self, config: Any, settings: Mapping[str, Any]) -> Any:
        """The configuration with a stored calibration's exit in place of the word for it."""
        ...

    def inputs(
        self,
        samples: Any,
        *,
        batch_size: int | None,
        progress: Progress | None = None,
        title: str = "",
    ) -> Inputs:
        """Samples made ready to be answered as often as there are exits.

        Raises:
            UsageError: an input that says nothing.
        """
        ...

    def answers(
        self,
        inputs: Any,
        exit: Exit | None = None,
        *,
        progress: Progress | None = None,
        title: str = "",
    ) -> Answers:
        """What it says to each input, and where each decision left.

        Args:
            inputs: what :meth:`inputs` made, or samples, or texts as a user would type them (of a
                pair two texts), which are read anew for each exit.
            exit: None is the model's own.
        """
        ...

    def evaluation(self, examples: Examples, config: Any, progress: Progress) -> Evaluation:
        """Its speed and quality on labelled samples."""
        ...

    def speed(
        self, examples: Examples, exit: Exit, config: Any, progress: Progress
    ) -> dict[str, Any]:
        """Measured wall-clock of one exit at batch 1, in turn with the full model."""
        ...

    def settle_texts(self, config: Any, progress: Progress) -> None:
        """What texts that are typed in need to be known beforehand; tells what is missing."""
        ...

    def opinions(self, config: Any, exit: Exit, progress: Progress) -> list[dict[str, Any]]:
        """What every layer makes of texts that were typed in: a result for each."""
        ...

    def name_outputs(self, config: Any, progress: Progress) -> None:
        """Settle what its outputs are called: the user's names, its own, or those of the data.

        Raises:
            UsageError: names that do not fit.
        """
        ...

    def tokenised(self, text: str, pair: str | None = None) -> Any:
        """One input on the device, for :meth:`live`."""
        ...

    def with_crew(self, crew: Crew) -> Model:
        """The same model, whose passes over many samples are done by a crew in parts."""
        ...

    def share(self, part: Any) -> Any:
        """What a member of the crew does: a part of a pass, as the model that has the crew cut it.

        Part and answer are pickled.
        """
        ...

    def live(self, tokenised: Any, exit: Exit) -> object:
        """Run one input by the live path: what a stopwatch times."""
        ...

    def along(self, described: Mapping[str, Any]) -> list[Exit]:
        """Exits of this criterion (and measure) at every setting, from cautious to eager.

        Returns:
            None for a criterion without settings, or one that these models do not have.
        """
        ...

    def exit_by_input(self, options: Any) -> Exit:
        """The exit of the options, or its own, which each input alone decides about.

        Raises:
            UsageError: all layers, or an exit that depends on other inputs too.
        """
        ...

    def attacked_exit(self, options: Any) -> Exit:
        """:meth:`exit_by_input`, of the kind that an attack can slow down.

        Raises:
            UsageError: it does not depend on the input; options that say nothing to it.
        """
        ...

    def ready_to_attack(self, config: Any, examples: Examples, progress: Progress) -> Any:
        """The configuration as any process needs it to attack these samples.

        Raises:
            UsageError: samples that cannot be attacked, or options that say nothing to them.
        """
        ...

    def no_gradients(self, config: Any) -> tuple[str | None, str]:
        """Why an attack by these options gets no gradients, and what helps; None where it does."""
        ...

    def under_attack(self, exit: Exit, config: Any) -> Attacked:
        """The model as a victim that leaves by this exit, within the configuration's budget."""
        ...


class Family(Protocol):
    """A kind of model, before anything of it is loaded.

    Attributes:
        name: of ``config.field.FAMILIES``, which has its words.
        trains: what ``eexit train --model`` calls its models; empty where none can be trained.
        kind: what its models answer with, :data:`~eexit_cli.core.answers.CLASSES` or ``TEXTS``.
    """

    @property
    def name(self) -> str: ...
    @property
    def trains(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Does a folder with this ``config.json`` hold one?"""
        ...

    def summary(self, name: str, kind: Any, path: Path, config: Mapping[str, Any]) -> Any:
        """A row of ``eexit models list``, without torch; None for a model without exits.

        Args:
            name, kind: as ``store.models.ModelRef`` has them.
            path: the folder.
            config: its ``config.json``.
        """
        ...

    def load(self, config: Any, *, progress: Progress | None = None) -> Model:
        """What ``config.model`` names.

        Raises:
            UsageError, MissingArtifactError, EexitError: as ``families.opening.open_model``.
        """
        ...

    def plan(self, config: Any) -> Any:
        """A training whose options have been checked, before anything is loaded; see
        ``families.training.Plan``."""
        ...
