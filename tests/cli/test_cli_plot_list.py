"""``eexit plot --list``: which figures there are, what they show, which runs they read."""

from __future__ import annotations

import json
import shlex

from eexit_cli.plots import FIGURES


def test_every_figure_is_listed_with_the_run_that_it_needs(eexit, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    done = eexit("plot", "--list")
    assert (done.code, done.err) == (0, "")
    assert eexit("plot", "slowdown", "--list").out == done.out
    for name, figure in FIGURES.working():
        (line,) = [line for line in done.out.splitlines() if line.split()[:1] == [name]]
        assert figure.summary in line
        assert figure.needs in line
        assert f" eexit {figure.make.removeprefix('eexit ')} " in f"{line} "
        assert shlex.split(figure.make)[:2] in [["eexit", command] for command in figure.commands]


def test_a_list_obeys_what_says_how_it_is_shown_and_refuses_the_rest(eexit) -> None:
    rows = json.loads(eexit("plot", "--list", "--json").out)["figures"]
    assert [row["figure"] for row in rows] == [name for name, _ in FIGURES.working()]
    assert eexit("plot", "--list", "--quiet").out.split() == [row["figure"] for row in rows]
    for options in (("--format", "svg"), ("--run", "latest"), ("--dpi", 100)):
        done = eexit("plot", "--list", *options)
        assert (done.code, done.out) == (2, "")
        assert f"--list draws nothing: {options[0]} says nothing" in done.err


def test_no_figure_and_no_list(eexit) -> None:
    done = eexit("plot")
    assert (done.code, done.out) == (2, "")
    assert "No figure is named" in done.err
    assert "eexit plot --list" in done.err
