"""The page: whole, true to the screens, asking nothing of anybody, and deaf to hostile texts."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import escape
from synthetic_calibrations import calibration_run
from synthetic_reports import HOSTILE, MARK, hostile_run, page_of
from synthetic_runs import attack_figures, attack_run, evaluate_run

from eexit_cli.core.text import readable
from eexit_cli.core.types import RunResult
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.ui.report.page import inline_svg
from eexit_cli.ui.report.recorder import Table, recorded

VOID = {"meta", "link", "input", "br", "img", "hr"}


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


class _Reader(HTMLParser):
    """Elements, attributes and texts; fails where an element is closed that is not open."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> says {names} twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.texts.append(data)


def read(page: str) -> _Reader:
    reader = _Reader(page)
    assert reader.open == []
    return reader


def _written(store: ResultStore) -> list[Run]:
    return [
        attack_run(store),
        hostile_run(store),  # two recipes
        evaluate_run(store, sweep=True),
        calibration_run(store),
    ]


def test_every_cell_of_the_screens_stands_on_the_page(store: ResultStore) -> None:
    runs = _written(store)
    page = page_of(store, *runs)
    reader = read(page)
    said = " ".join("\n".join(reader.texts).split())
    cells = 0
    for run in runs:
        document = run.document()
        assert document is not None
        for block in recorded(RunResult(document, run.path)).blocks:
            texts = [block.text] if not isinstance(block, Table) else [
                *[heading for heading, _ in block.headings],
                *[cell for row in block.rows for cell, _ in row],
            ]  # fmt: skip
            for text in texts:
                cells += 1
                assert " ".join(readable(text).split()) in said
    assert cells > 200


def test_it_is_one_whole_document_that_asks_nobody(store: ResultStore) -> None:
    page = page_of(store, *_written(store))
    reader = read(page)
    tags = [tag for tag, _ in reader.elements]
    assert page.startswith("\n" * page.index("<!DOCTYPE html>") + "<!DOCTYPE html>")
    assert ("html", {"lang": "en"}) in reader.elements
    assert tags.count("title") >= 1
    assert tags.count("h1") == 1
    assert tags.count("script") == 1
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(tags)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert str(value).startswith("#"), (tag, name, value)
                assert str(value)[1:] in ids
            if not name.startswith("xmlns"):
                assert "//" not in str(value)
            for mark in re.findall(r"url\(#([^)]+)\)", str(value)):
                assert mark in ids
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_script_alone(store: ResultStore) -> None:
    reader = read(page_of(store, attack_run(store)))
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in reader.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = base64.b64encode(hashlib.sha256("".join(reader.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert policy.count("unsafe-inline") == 1  # of styles


def test_hostile_texts_are_texts(store: ResultStore) -> None:
    run = hostile_run(store)
    page = page_of(store, run, run, title=HOSTILE[3])
    reader = read(page)
    tags = {tag for tag, _ in reader.elements}
    assert "img" not in tags
    assert page.count("<script>") == 1
    assert MARK not in "".join(reader.scripts)
    for _, attributes in reader.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert not str(attributes.get("href", "")).startswith("javascript")
    said = "".join(reader.texts)
    for text in HOSTILE:
        assert readable(text) in said  # whole, and as it stands
    assert "83810205" not in said
    commands = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
    assert commands.search(page) is None
    assert str(escape(HOSTILE[0])) in page


def test_texts_in_figures_stay_texts(store: ResultStore) -> None:
    page = page_of(store, hostile_run(store), attack_run(store))
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) > 4
    for figure in figures:
        tags = {each.tag.rpartition("}")[2] for each in ElementTree.fromstring(figure).iter()}
        assert tags <= {"svg", "g", "defs", "path", "use", "clipPath", "rect"}, tags
        assert "<!--" not in figure


def test_a_figures_own_script_and_style_stay_out() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        "<!-- a --><metadata>b</metadata><defs><style>* {color: red}</style>"
        '<path id="c"/></defs><g clip-path="url(#c)"><use xlink:href="#c"/></g></svg>'
    )
    drawn = str(inline_svg(svg.encode(), "one", 'shows "it"'))
    assert 'id="one-c"' in drawn
    assert 'clip-path="url(#one-c)"' in drawn
    assert 'xlink:href="#one-c"' in drawn
    assert 'aria-label="shows &quot;it&quot;"' in drawn
    assert "style>" not in drawn
    assert "metadata" not in drawn
    assert "<!--" not in drawn


def test_changed_words_are_marked_and_exits_drawn(store: ResultStore) -> None:
    with store.create("attack", {"model": "deebert", "classes": ["bad", "good"]}) as run:
        run.append(
            {
                "id": "one",
                "text": "a fine film",
                "perturbed_text": "a dull film",
                "changed_words": [{"position": 1, "from": "fine", "to": "dull"}],
                "label": 1,
                "status": "attacked",
                "prediction_before": 1,
                "prediction_after": 0,
                "exit_layer_before": 2,
                "exit_layer_after": 3,
                "progress": [[1, 2], [4, 3]],
            }
        )
        run.finish(
            metrics=attack_figures(np.array([2]), np.array([3]), 3),
            rows=[{"recipe": "same-token", "samples": 1}],
        )
    page = page_of(store, run)
    assert "a <del>fine</del> film" in page
    assert "a <ins>dull</ins> film" in page
    assert "good → bad" in page
    assert 'aria-label="layer 2 of 3"' in page
    filled = re.findall(r'class="cells">(.*?)</span>', page)
    assert [each.count('class="run ') for each in filled] == [2, 3]
    assert [each.count("<i ") for each in filled] == [3, 3]


def test_samples_beyond_the_limit_are_counted(store: ResultStore) -> None:
    run = attack_run(store, samples=30)
    page = page_of(store, run, limit=12)
    assert "the first 12 of 30, 18 are left out" in page
    assert page.count('aria-label="layer') == 24
    assert "all 30" in page_of(store, run, limit=0)


def test_runs_stand_in_the_order_asked_each_once(store: ResultStore) -> None:
    first, second = attack_run(store), evaluate_run(store)
    page = page_of(store, second, first, second)
    assert "<title>2 runs of eexit</title>" in page
    assert "The runs side by side" in page
    assert page.index(f'<p class="id">{second.id}') < page.index(f'<p class="id">{first.id}')
    assert page.count('<section class="one-run"') == 2
    assert "<title>What I did</title>" in page_of(store, first, title="What I did")


def test_a_run_without_records_says_so(store: ResultStore) -> None:
    measured = evaluate_run(store).document()
    assert measured is not None
    with store.create("evaluate", {"model": "deebert"}) as run:
        run.finish(metrics=measured["metrics"])
    page = page_of(store, run)
    assert "keeps no records of single samples" in page
    assert "data-searchable" not in page


def test_a_training_shows_what_it_logged(store: ResultStore) -> None:
    with store.create("train", {"model": "deebert", "task": "sst2", "output": "mine"}) as run:
        run.append({"stage": "backbone", "step": 5, "loss": 0.75, "accuracy_exit_1": 0.5})
        run.finish(metrics={"accuracy_exit_1": 0.5, "accuracy_exit_2": 0.75, "num_layers": 2})
    said = "".join(read(page_of(store, run)).texts)
    for words in ("What the training logged", "backbone", "0.75", "75.0 %", "--output mine"):
        assert words in said


def test_a_calibration_shows_loss_and_exit_at_its_threshold(store: ResultStore) -> None:
    run = calibration_run(store, samples=60)
    document = run.document()
    assert document is not None
    page = page_of(store, run)
    assert "Samples at the accepted threshold" in page
    chosen = document["metrics"]["threshold_index"]
    losses = [
        loss
        for record in run.records()
        if record["kind"] == "threshold" and record["index"] == chosen
        for loss in record["losses"]
    ]
    found = [float(value) for value in re.findall(r'data-value="([^"]+)">\s*<p', page)]
    assert found == pytest.approx(losses)
