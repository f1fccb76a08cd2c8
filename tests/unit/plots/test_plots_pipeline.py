"""``run_plot``: which run, which file, which format, and one clear line for what cannot be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from synthetic_runs import attack_run, evaluate_run, transfer_run

from eexit_cli.config.plot import PlotConfig
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError
from eexit_cli.pipelines.plot import run_plot
from eexit_cli.store.results import ResultStore


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def plot(store: ResultStore, figure: str = "slowdown", **options: Any) -> Path:
    config = PlotConfig(figure=figure, results_dir=store.results_dir, **options)
    (path,) = run_plot(config)
    return path


BEGINNINGS = {"png": b"\x89PNG\r\n", "svg": b"<?xml", "pdf": b"%PDF-"}


@pytest.mark.parametrize("form", BEGINNINGS)
def test_every_format_is_written_and_says_which_run_it_shows(
    store: ResultStore, tmp_path: Path, form: str
) -> None:
    run = attack_run(store)
    path = plot(store, output=tmp_path / "new folder" / f"figure.{form.upper()}")
    content = path.read_bytes()
    assert path == tmp_path / "new folder" / f"figure.{form.upper()}"
    assert content.startswith(BEGINNINGS[form])
    assert run.id.encode() in content
    assert [item.name for item in path.parent.iterdir()] == [path.name]  # no temporary file
    if form == "pdf":  # TrueType fonts, which publishers accept; type 3 they do not
        assert b"/Type0" in content
        assert b"/Type3" not in content
    if form == "svg":
        assert b"clip-path" in content
    # The same run gives the same bytes.
    again = plot(store, output=tmp_path / f"again.{form}")
    assert again.read_bytes() == content


def test_the_default_is_a_png_of_one_column_in_the_runs_folder(store: ResultStore) -> None:
    run = attack_run(store)
    path = plot(store)
    assert path == run.path / "slowdown.png"
    with Image.open(path) as image:
        assert image.width == round(3.3 * 300)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert 300 < image.height < 900
        assert len(image.convert("RGB").getcolors(1_000_000)) > 10
    assert plot(store, format="svg").name == "slowdown.svg"


def test_size_and_dots_are_the_users(store: ResultStore) -> None:
    attack_run(store)
    with Image.open(plot(store, width=5.0, height=4.0, dpi=100)) as image:
        assert image.size == (500, 400)


def test_without_a_run_named_the_newest_that_fits_is_drawn(store: ResultStore) -> None:
    attack_run(store)
    newest = attack_run(store, model="pabee")
    swept = evaluate_run(store, sweep=True)
    evaluated = evaluate_run(store)  # newer, but has no sweep
    store.create("attack", {"model": "x"}).close()  # newest, but unfinished
    assert plot(store, "slowdown").parent == newest.path
    assert plot(store, "tradeoff").parent == swept.path
    assert plot(store, "exits").parent == evaluated.path


def test_the_chosen_run_is_told(store: ResultStore) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def message(self, text: str) -> None:
            self.heard.append(text)

    run, listener = attack_run(store), Listener()
    config = PlotConfig(results_dir=store.results_dir)
    run_plot(config, progress=listener)  # type: ignore[arg-type]
    assert listener.heard == [f"Drawing run {run.id}"]
    named = PlotConfig(results_dir=store.results_dir, runs=(run.id,))
    run_plot(named, progress=listener)  # type: ignore[arg-type]
    assert len(listener.heard) == 1


def test_several_runs_go_into_the_first_ones_folder_and_none_twice(store: ResultStore) -> None:
    first, second = attack_run(store), attack_run(store, model="pabee")
    one = plot(store, runs=(second.id, second.id)).read_bytes()
    path = plot(store, runs=(second.id, first.id))
    assert path.parent == second.path
    assert path.read_bytes() != one


def test_an_output_folder_takes_the_figures_name(store: ResultStore, tmp_path: Path) -> None:
    attack_run(store)
    assert plot(store, output=tmp_path) == tmp_path / "slowdown.png"
    assert plot(store, output=tmp_path, format="pdf") == tmp_path / "slowdown.pdf"
    assert plot(store, output=tmp_path / "mine", format="svg") == tmp_path / "mine.svg"


@pytest.mark.parametrize(
    ("figure", "command"),
    [
        ("slowdown", "eexit attack --model deebert"),
        ("tradeoff", "eexit evaluate --model deebert --sweep"),
        ("exits", "eexit evaluate --model deebert"),
    ],
)
def test_without_a_run_the_error_names_the_command(
    store: ResultStore, figure: str, command: str
) -> None:
    with pytest.raises(MissingArtifactError, match=f"can be drawn as '{figure}'") as caught:
        plot(store, figure)
    assert caught.value.hint == f"Run: {command}"
    if figure == "tradeoff":
        evaluate_run(store)
        with pytest.raises(MissingArtifactError, match="--sweep"):
            plot(store, figure)


def test_what_cannot_be_is_one_clear_line(store: ResultStore, tmp_path: Path) -> None:
    attack = attack_run(store)
    evaluated = evaluate_run(store)
    unfinished = store.create("attack", {"model": "m"})
    unfinished.close()

    def refused(kind: type[EexitError], said: str, hinted: str, **options: Any) -> None:
        with pytest.raises(kind, match=said) as caught:
            plot(store, **options)
        assert type(caught.value) is kind
        assert caught.value.hint is not None
        assert hinted in caught.value.hint
        assert "\n" not in caught.value.message + caught.value.hint

    refused(UsageError, "Unknown figure 'slowdwn'", "slowdown", figure="slowdwn")
    refused(UsageError, "Unknown figure format 'jpg'", "png", output=tmp_path / "a.jpg")
    refused(UsageError, "Unknown figure format 'pgn'", "Did you mean png", format="pgn")
    refused(UsageError, "no extension", ".png", output=tmp_path / "figure")
    refused(UsageError, "not a file for", ".pdf", output=tmp_path / "a.png", format="pdf")
    refused(UsageError, "width of 0.1", "3.3", width=0.1)
    refused(UsageError, "height of 1000", "inches", height=1000.0)
    refused(UsageError, "1 dots", "50", dpi=1)
    refused(MissingArtifactError, "No run 'nothing'", "results list", runs=("nothing",))
    refused(EexitError, "is not finished", "results list", runs=(unfinished.id,))
    refused(UsageError, "cannot be drawn as 'slowdown'", "eexit attack", runs=(evaluated.id,))
    refused(UsageError, "cannot be drawn", "--sweep", figure="tradeoff", runs=(evaluated.id,))
    refused(UsageError, "as 'recipes'", "several recipes", figure="recipes", runs=(attack.id,))
    replay = transfer_run(store)
    fitting = f"eexit plot transfer --run {replay.id}"
    for name in ("slowdown", "recipes", "efficacy", "budget", "exits"):
        refused(UsageError, f"as '{name}'", fitting, figure=name, runs=(replay.id,))
    (attack.path / "all_results.json").write_text("{")
    refused(EexitError, "is damaged", "again", runs=(attack.id,))
    assert list(tmp_path.glob("*.*")) == []


def test_a_full_disk_leaves_the_old_figure(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack_run(store)
    path = plot(store)
    before = path.read_bytes()

    def no_space(self: Figure, stream: Any, **_: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", no_space)
    with pytest.raises(OSError, match="No space left") as caught:
        plot(store)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))


def test_plotting_needs_no_display_no_pyplot_and_no_model(
    store: ResultStore,
) -> None:
    attack_run(store)
    code = (
        "import sys\n"
        "from eexit_cli.plots import FIGURES\n"
        "from eexit_cli.config.plot import PlotConfig\n"
        "assert not {'matplotlib', 'pandas', 'numpy'} & set(sys.modules)\n"
        "from eexit_cli.pipelines.plot import run_plot\n"
        f"run_plot(PlotConfig(results_dir={str(store.results_dir)!r}))\n"
        "print(sorted({'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**environment, "MPLBACKEND": "TkAgg"},
    )
    assert answer.stderr == ""
    assert answer.stdout.strip() == "[]"
