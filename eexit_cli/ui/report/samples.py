"""The samples of a run: texts with their changed words, and where each left, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.text import Text

from eexit_cli.ui.measures import label, written
from eexit_cli.ui.screens.attack import highlighted, highlighted_letters, whole_text

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Layers:
    """Where something left.

    Attributes:
        depth: layers that were run; of several tokens their mean.
        total: layers that there are.
        tones: of each layer, what is known of its answer: right, wrong or empty.
        tokens: layers of each token; empty where one exit stands for the whole sample.
    """

    depth: float
    total: int
    tones: Sequence[str] = ()
    tokens: Sequence[int] = ()

    @property
    def words(self) -> str:
        depth = f"{self.depth:g}" if float(self.depth).is_integer() else f"{self.depth:.2f}"
        said = f"layer {depth} of {self.total}"
        return f"{said}; by token {', '.join(map(str, self.tokens))}" if self.tokens else said

    @property
    def cells(self) -> list[tuple[bool, str]]:
        """Of each layer: was it run, and its tone."""
        tones = [*self.tones, *[""] * self.total]
        return [(layer < round(self.depth), tones[layer]) for layer in range(self.total)]


@dataclass(frozen=True)
class Line:
    """A text in parts, of which some are marked.

    Attributes:
        parts: text and whether it is marked.
        name: what the text is, for those who do not see where it stands.
        mark: the element that marks: del, ins or mark.
    """

    parts: Sequence[tuple[str, bool]]
    name: str = ""
    mark: str = "mark"


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        lines: texts below each other.
        layers: drawn, where the cell says where something left.
        value: what sorts it among numbers.
        note: said below.
        wide: a running text, which may take the room that there is.
    """

    lines: Sequence[Line] = ()
    layers: Layers | None = None
    value: float | None = None
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Samples:
    """A table of samples.

    Attributes:
        title: its caption.
        headings: text and whether the column holds numbers.
        rows: of cells.
        total: samples of the run; more than there are rows where a limit was set.
        notes: what the columns are, where they do not say it.
    """

    title: str
    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Cell]]
    total: int
    notes: Sequence[str] = field(default_factory=tuple)


def samples(document: Mapping[str, Any], records: Sequence[Record], limit: int) -> Samples | None:
    """The table of a run's samples; None where it kept none.

    Args:
        document: the run's.
        records: all of the run's.
        limit: of rows; 0 is none.
    """
    kept = _of_chosen_threshold(document, records) if _is_calibration(records) else list(records)
    if not kept:
        return None
    title, columns, notes = _columns(document, kept)
    shown = kept[:limit] if limit else kept
    used = [column for column in columns if any(_says(column[2](record)) for record in shown)]
    return Samples(
        title,
        headings=[(heading, numeric) for heading, numeric, _ in used],
        rows=[[cell(record) for _, _, cell in used] for record in shown],
        total=len(kept),
        notes=notes,
    )


Draw = Callable[[Record], Cell]
NamedColumn = tuple[str, bool, Draw]


def _says(cell: Cell) -> bool:
    return bool(cell.layers or any(text for line in cell.lines for text, _ in line.parts))


def _columns(
    document: Mapping[str, Any], records: Sequence[Record]
) -> tuple[str, list[NamedColumn], list[str]]:
    first = records[0]
    total = int(document["metrics"].get("num_layers") or 0)
    names = list(document["config"].get("classes") or document["config"].get("label_names") or ())
    # Columns that say the same everywhere say nothing.
    apart = [
        _plain(key, heading)
        for key, heading in (
            *(("recipe", "Recipe"), ("source", "Made on")),
            *(("victim", "Victim"), ("defence", "Defence"), ("measure", "Measure")),
        )
        if len({str(record.get(key)) for record in records}) > 1
    ]
    if "exit_layer_after" in first:
        columns, notes = _attack_columns(total, names, by_token="token_layers_after" in first)
        return "Samples", [_plain("id", "Sample"), *apart, *columns], notes
    if "exit_layer" in first and "exit_predictions" in first:
        columns, notes = _evaluation_columns(total, names, first.get("confidence", "confidence"))
        return "Samples", [_plain("id", "Sample"), *columns], notes
    if "exit_layers" in first and "output" in first:
        columns, notes = _decoding_columns(total)
        return "Samples", [_plain("id", "Sample"), *columns], notes
    if "loss" in first and "part" in first:
        columns = [_plain("part", "Part"), _number("loss", "Loss"), _depth("exit_layer", total)]
        return "Samples at the accepted threshold", [_plain("id", "Sample"), *apart, *columns], []
    keys = dict.fromkeys(
        key for record in records for key, value in record.items()
        if isinstance(value, (str, int, float))
    )  # fmt: skip
    columns = [
        _number(key, label(key))
        if all(isinstance(record.get(key), (int, float, type(None))) for record in records)
        else _plain(key, label(key))
        for key in keys
    ]
    return ("What the training logged" if "loss" in first else "Samples"), columns, []


_SQUARES = "A square is one of {} layers, filled where it was run."
_BARS = "A bar is a token, as high as the layer of {} where it left."


def _attack_columns(
    total: int, names: Sequence[str], *, by_token: bool
) -> tuple[list[NamedColumn], list[str]]:
    columns = [
        ("Text, before and after", False, _texts),
        ("Label", False, lambda record: _text(_named(record.get("label"), names))),
        ("Wanted", False, lambda record: _text(record.get("target"))),
        ("Answer", False, lambda record: _answers(record, names)),
        _depth("exit_layer_before", total, "Exit before"),
        _depth("exit_layer_after", total, "Exit after"),
        _number("queries", "Queries"),
    ]
    return columns, [_BARS.format(total) if by_token else _SQUARES.format(total)]


def _evaluation_columns(
    total: int, names: Sequence[str], measure: object
) -> tuple[list[NamedColumn], list[str]]:
    def left(record: Record) -> Cell:
        answers, label_ = record["exit_predictions"], record.get("label")
        # A regression's answer is never exactly the label.
        judged = isinstance(label_, int) and all(isinstance(each, int) for each in answers)
        tones = ["right" if each == label_ else "wrong" for each in answers] if judged else ()
        depth = record["exit_layer"]
        return Cell(layers=Layers(depth, total, tones), value=depth)

    def sure(record: Record) -> Cell:
        found = [
            f"{value:.3f}" for value in record.get("exit_confidences") or () if value is not None
        ]
        return _text(" ".join(found))

    columns = [
        ("Label", False, lambda record: _text(_named(record.get("label"), names))),
        ("Answer", False, lambda record: _text(_named(record.get("prediction"), names))),
        ("Left at", True, left),
        (f"{str(measure).capitalize()} at each exit", False, sure),
    ]
    return columns, [
        f"A square is one of {total} exits, filled as far as the sample went; a cross marks an "
        "exit whose answer is not the label. The run keeps no texts."
    ]


def _decoding_columns(total: int) -> tuple[list[NamedColumn], list[str]]:
    def output(record: Record) -> Cell:
        lines = [Line([(str(record["output"]), False)])]
        full = record.get("output_full")
        same = full is None or full == record["output"]
        return Cell(lines=lines, note="" if same else f"full model: {full}")

    def left(record: Record) -> Cell:
        depth = record["mean_exit_layer"]
        return Cell(layers=Layers(depth, total, tokens=record["exit_layers"]), value=depth)

    columns = [
        ("Text", False, lambda record: replace(_text(record.get("source")), wide=True)),
        ("Wanted", False, lambda record: _text(record.get("target"))),
        ("Output", False, output),
        ("Left at", True, left),
    ]
    return columns, [_BARS.format(total)]


def _depth(key: str, total: int, heading: str = "Left at") -> NamedColumn:
    def cell(record: Record) -> Cell:
        depth = record.get(key)
        if depth is None:
            return Cell()
        tokens = record.get(key.replace("exit_layer", "token_layers"), ())
        return Cell(layers=Layers(depth, total, tokens=tokens), value=depth)

    return heading, True, cell


def _texts(record: Record) -> Cell:
    before = whole_text(record, "text")
    after = whole_text(record, "perturbed_text") if "perturbed_text" in record else before
    changes = record.get("changed_words") or ()
    note = f"{record['status']}: {record['reason']}" if record.get("reason") else ""
    if before == after:
        return Cell(lines=[Line([(before, False)])], note=note, wide=True)
    return Cell(
        lines=[
            _marked(record, before, changes, "from", "del", "before"),
            _marked(record, after, changes, "to", "ins", "after"),
        ],
        note=note,
        wide=True,
    )


def _marked(
    record: Record, text: str, changes: Sequence[Record], key: str, mark: str, name: str
) -> Line:
    if record.get("unit") == "letters":
        drawn = highlighted_letters(text, changes, key, "bold")
    else:
        drawn = highlighted(
            text, [(change["position"], str(change[key])) for change in changes], "bold"
        )
    return Line(_parts(drawn), name, mark)


def _parts(drawn: Text) -> list[tuple[str, bool]]:
    parts: list[tuple[str, bool]] = []
    start = 0
    for span in drawn.spans:
        parts += [
            (drawn.plain[start : span.start], False),
            (drawn.plain[span.start : span.end], True),
        ]
        start = span.end
    parts.append((drawn.plain[start:], False))
    return [part for part in parts if part[0]]


def _answers(record: Record, names: Sequence[str]) -> Cell:
    said = [
        str(record[f"output_{when}"])
        if f"output_{when}" in record
        else _named(record.get(f"prediction_{when}"), names)
        for when in ("before", "after")
    ]
    if said[0] == said[1]:
        return _text(said[0])
    if "output_before" not in record:
        return _text(" → ".join(said))
    lines = [Line([(said[0], False)], "before"), Line([(said[1], False)], "after")]
    return Cell(lines=lines, wide=True)


def _named(value: Any, names: Sequence[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return str(names[value])
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> Cell:
    return Cell(lines=[Line([("" if value is None else str(value), False)])])


def _plain(key: str, heading: str) -> NamedColumn:
    return heading, False, lambda record: _text(record.get(key))


def _number(key: str, heading: str) -> NamedColumn:
    def cell(record: Record) -> Cell:
        value = record.get(key)
        if value is None:
            return Cell()
        return Cell(lines=[Line([(written(key, value), False)])], value=float(value))

    return heading, True, cell


def _is_calibration(records: Sequence[Record]) -> bool:
    return bool(records) and records[0].get("kind") == "samples"


def _of_chosen_threshold(
    document: Mapping[str, Any], records: Sequence[Record]
) -> list[dict[str, Any]]:
    """A record per sample: its loss and its exit under the threshold that was accepted."""
    ids = records[0]
    parts = (document.get("report") or {}).get("measures") or [document]
    chosen = {
        (part.get("confidence"), part["metrics"].get("threshold_index")): part for part in parts
    }
    several = len(parts) > 1
    found = []
    for record in records:
        measure = record.get("confidence") if several else None
        if record.get("kind") != "threshold" or (measure, record["index"]) not in chosen:
            continue
        layers = record.get("exit_layers") or [None] * len(record["losses"])
        for sample, loss, layer in zip(
            ids.get(record["part"], ()), record["losses"], layers, strict=False
        ):
            found.append(
                {"id": sample, "part": record["part"], "loss": loss, "exit_layer": layer}
                | ({"measure": measure} if several else {})
            )
    return found
