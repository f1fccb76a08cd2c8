"""From runs to HTML. Nothing in a text, a name or a label becomes markup.

Every expression of the template passes :func:`_shown` and is then escaped; what is markup already
is made here, of our own files and of figures whose texts are escaped by the XML writer.
"""

from __future__ import annotations

import re
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eexit_cli import __version__
from eexit_cli.config.command_line import command_line
from eexit_cli.config.report import ReportConfig
from eexit_cli.core.text import readable
from eexit_cli.core.types import RunResult
from eexit_cli.ui.measures import label, written
from eexit_cli.ui.report.recorder import Recorder, Table, properties, recorded
from eexit_cli.ui.report.samples import Samples, samples
from eexit_cli.ui.screens.attack_table import leading_metric
from eexit_cli.ui.screens.listings import telling
from eexit_cli.ui.screens.words import criterion_words
from eexit_cli.ui.tables import Column, Row, Sheet

_FOLDER = Path(__file__).parent
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_MARKS = re.compile(r"#([\w.-]+)")


class Drawn(Protocol):
    """A figure (``pipelines.report.Drawing``)."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def svg(self) -> bytes: ...


class Shown(Protocol):
    """A run (``pipelines.report.Reported``)."""

    @property
    def result(self) -> RunResult: ...
    @property
    def records(self) -> Sequence[dict[str, Any]]: ...
    @property
    def drawings(self) -> Sequence[Drawn]: ...


class Pages(Protocol):
    """Everything (``pipelines.report.Contents``)."""

    @property
    def runs(self) -> Sequence[Shown]: ...
    @property
    def together(self) -> Sequence[Drawn]: ...


@dataclass(frozen=True)
class Figure:
    """A figure on the page."""

    name: str
    summary: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """A run on the page.

    Attributes:
        id: the run's.
        title: what was done to which model.
        commands: what to type to run it again; either does.
        facts: when and on what it ran.
        settings: all that was asked, with defaults.
        screen: what its command showed.
        figures: of it.
        samples: None where it kept none.
    """

    id: str
    title: str
    commands: Sequence[str]
    facts: Mapping[str, str]
    settings: Mapping[str, str]
    screen: Recorder
    figures: Sequence[Figure]
    samples: Samples | None


def render_page(config: ReportConfig, contents: Pages) -> str:
    """The whole page.

    Args:
        config: its title, and how many samples of a run are shown.
        contents: the runs.
    """
    documents = [run.result.document for run in contents.runs]
    sections = [
        _section(number, run, config.limit) for number, run in enumerate(contents.runs, start=1)
    ]
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    several = len(sections) > 1
    return _environment().get_template("page.html").render(
        title=config.title or (f"{len(sections)} runs of eexit" if several else sections[0].title),
        version=__version__,
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        sections=sections,
        comparison=Table.of(_comparison(documents, sections)) if several else None,
        together=[_figure(f"all-{each.name}", each) for each in contents.together],
    )  # fmt: skip


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """A text without what would command its reader: controls, marks that turn the line around."""
    return readable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _section(number: int, run: Shown, limit: int) -> Section:
    document, path = run.result.document, run.result.path
    command, config = document["command"], document["config"]
    environment = document.get("environment") or {}
    model = config.get("model") or config.get("losses") or ""
    again = command_line(command, config)
    return Section(
        id=path.name,
        title=f"{str(command).capitalize()}: {model}" if model else str(command).capitalize(),
        commands=[again, f"eexit {command} --config {shlex.quote(str(path / 'config.json'))}"],
        facts=_facts(document, environment),
        settings=properties(config),
        screen=recorded(run.result),
        figures=[_figure(f"run{number}-{each.name}", each) for each in run.drawings],
        samples=samples(document, run.records, limit),
    )


def _facts(document: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    seconds = sum(value for value in (document.get("timings") or {}).values() if value)
    packages = environment.get("packages") or {}
    versions = [f"{name} {version}" for name, version in packages.items() if version]
    revision = environment.get("git_revision")
    threads, cores = environment.get("threads"), environment.get("cpu_count")
    pairs = {
        "Started": str(document.get("created", ""))[:19].replace("T", " ") + " UTC",
        "Took": written("seconds", seconds) if seconds else None,
        "eexit": f"{environment.get('eexit')}{f', commit {revision[:12]}' if revision else ''}",
        "Python": environment.get("python"),
        "Packages": ", ".join(versions),
        "Machine": environment.get("platform"),
        "Processors": f"{cores} (threads used: {threads})" if cores else None,
    }
    return {name: str(value) for name, value in pairs.items() if value}


def _comparison(documents: Sequence[Mapping[str, Any]], sections: Sequence[Section]) -> Sheet:
    """One row per run with what most runs have."""
    rows = [
        {
            "run": f"{number}",
            "command": document["command"],
            "model": facts.get("model") or facts.get("losses"),
            "data": facts.get("data") or facts.get("replay of") or facts.get("task"),
            "exit": facts.get("exit") or _exit(document),
            **document["metrics"],
            "quality": _quality(document),
            "result": telling(document["metrics"]),
        }
        for number, (document, section) in enumerate(zip(documents, sections, strict=True), start=1)
        for facts in (section.screen.facts,)
    ]
    columns = [
        Column("run", "Run", numeric=True),
        Column("command", "Command"),
        Column("model", "Model"),
        Column("data", "Data"),
        Column("exit", "Exit"),
        Column("samples", numeric=True),
        Column("quality", "Quality"),
        *(
            _pair(name, heading)
            for name, heading in (
                ("mean_exit_layer", "Exit layer"),
                ("speedup_layers", "Speedup (layers)"),
                ("speedup_seconds", "Speedup (seconds)"),
            )
            if any(name in row or f"{name}_after" in row for row in rows)
        ),
        Column("result", "Result"),
    ]
    return Sheet(columns, rows, title="The runs side by side")


def _exit(document: Mapping[str, Any]) -> str:
    """What a screen says elsewhere than above everything."""
    found = (document.get("report") or {}).get("exit") or document["config"].get("exit")
    return criterion_words(found) if found else ""


def _pair(name: str, heading: str) -> Column:
    """A figure, or what it was before and after an attack."""

    def text(row: Row) -> str:
        if f"{name}_after" not in row:
            return written(name, row.get(name))
        return " → ".join(written(name, row.get(f"{name}_{when}")) for when in ("before", "after"))

    return Column(name, heading, text=text, numeric=True)


def _quality(document: Mapping[str, Any]) -> str:
    """The task's leading metric with its name."""
    metrics = document["metrics"]
    name = leading_metric(metrics)
    if name is not None:
        ends = [metrics.get(f"{name}_{when}") for when in ("before", "after")]
        words = " → ".join(written(name, end) for end in ends if end is not None)
        return f"{label(name)} {words}"
    name = next((name for name in metrics if f"{name}_full" in metrics), None)
    return "" if name is None else f"{label(name)} {written(name, metrics[name])}"


def _figure(prefix: str, drawn: Drawn) -> Figure:
    return Figure(drawn.name, drawn.summary, inline_svg(drawn.svg, prefix, drawn.summary))


def inline_svg(content: bytes, prefix: str, name: str) -> Markup:
    """A file of matplotlib's as a part of a page.

    Args:
        content: the whole file; its comments, metadata, title and style sheet stay out.
        prefix: put before its ids, which other figures have too.
        name: what it shows, for those who do not see it.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(f"{{{_SVG}}}") in ("metadata", "style", "title"):
                parent.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{prefix}-{value}")
            elif (value.startswith("#") and key.endswith("href")) or "url(#" in value:
                element.set(key, _MARKS.sub(rf"#{prefix}-\1", value))
    # What its style sheet said, which would hold for the whole page.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    root.set("role", "img")
    root.set("aria-label", readable(name))
    return Markup(ElementTree.tostring(root, encoding="unicode"))
