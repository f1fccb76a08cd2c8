"""``eexit plot --list``: which figures there are, what they show, which runs they read."""

from __future__ import annotations

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
