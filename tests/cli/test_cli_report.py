"""``eexit report`` as it is typed: which runs, which file, and one line for what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import attack_run, evaluate_run

from eexit_cli.store.results import ResultStore

Invoke = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def test_the_latest_run_becomes_report_html(
    eexit: Invoke, store: ResultStore, tmp_path: Path
) -> None:
    attack_run(store)
    newest = evaluate_run(store)
    done = eexit("report")
    assert (done.code, done.out) == (0, "report.html\n")
    assert f"Reporting run {newest.id}" in done.err
    assert newest.id in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"results", "report.html"}
    assert eexit("report", "--quiet").err == ""


def test_runs_are_named_as_elsewhere(eexit: Invoke, store: ResultStore, tmp_path: Path) -> None:
    first, second = attack_run(store), evaluate_run(store)
    done = eexit("report", first.path, second.id[:-1], "latest", "--output", "new/page.htm")
    assert (done.code, done.out.strip()) == (0, str(Path("new/page.htm")))
    page = (tmp_path / "new" / "page.htm").read_text(encoding="utf-8")
    assert page.count('<section class="one-run"') == 2


def test_the_file_is_said_as_json(eexit: Invoke, store: ResultStore, tmp_path: Path) -> None:
    attack_run(store)
    (tmp_path / "pages").mkdir()
    done = eexit("report", "--json", "--output", "pages")
    assert json.loads(done.out) == {"file": str(Path("pages") / "report.html")}
    assert eexit("report", "--output", "named").out == "named.html\n"


def test_what_cannot_be_is_said_in_a_line(
    eexit: Invoke, store: ResultStore, tmp_path: Path
) -> None:
    done = eexit("report")
    assert (done.code, done.out) == (3, "")
    assert "No finished run in 'results'" in done.err
    attack_run(store)
    done = eexit("report", "no-such-run")
    assert (done.code, "No run 'no-such-run'" in done.err) == (3, True)
    done = eexit("report", "--output", "page.pdf")
    assert (done.code, "'page.pdf' is not a file for a page" in done.err) == (2, True)
    done = eexit("report", "--limit", "-1")
    assert done.code == 2
    with store.create("attack", {"model": "deebert"}) as run:
        pass
    done = eexit("report", run.id)
    assert done.code == 3
    assert f"Run '{run.id}' is not finished" in done.err
    assert f"Go on with: eexit attack --resume {run.id}" in done.err
    assert not list(tmp_path.glob("*.html"))


def test_an_old_page_stays_where_the_new_one_fails(
    eexit: Invoke, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack_run(store)
    (tmp_path / "report.html").write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eexit_cli.store.atomic.os.replace", full)
    done = eexit("report")
    assert done.code == 1
    assert "report.html" in done.err
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_real_attack_is_repeated_by_the_pages_command(
    eexit: Invoke, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    import html
    import re
    import shlex

    options = ("--data-file", reviews, "--limit", 4, "--top-n", 5, "--beam-width", 2)
    first = eexit("attack", "--model", tiny_model, *options, "--per-size", 2, "--json")
    assert first.code == 0, first.err
    assert eexit("report").code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    told = re.search(r"<pre><code>(.*?)</code></pre>", page)
    assert told is not None
    program, *words = shlex.split(html.unescape(told[1]))
    assert program == "eexit"
    again = eexit(*words, "--json")
    assert again.code == 0, again.err
    one, two = json.loads(first.out), json.loads(again.out)
    assert one["config"] == two["config"]
    assert one["metrics"]["mean_exit_layer_after"] == two["metrics"]["mean_exit_layer_after"]
    assert "<ins>" in page
