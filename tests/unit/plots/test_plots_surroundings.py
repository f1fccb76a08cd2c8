"""Figures look the same whatever matplotlib is set to, and print names as they are."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from pandas import DataFrame
from PIL import Image
from synthetic_runs import attack_run

from eexit_cli.config.plot import PlotConfig
from eexit_cli.core.progress import SilentProgress
from eexit_cli.pipelines.plot import run_plot
from eexit_cli.plots import FIGURES, lettering
from eexit_cli.plots.figure import PANEL, FigureSpec
from eexit_cli.plots.lettering import lacking, printable
from eexit_cli.plots.rendering import render, save
from eexit_cli.store.results import ResultStore

HOSTILE = "_m $x_1$ \\alpha %s{} ^2 \x1b[31m \x07 \u202e"


def _spec() -> FigureSpec:
    def draw(frame: DataFrame, ax: object) -> None:
        for name, rows in frame.groupby("name", sort=False):
            ax.plot(rows["x"], rows["y"], label=str(name))
        ax.set_title(frame[PANEL].iloc[0])
        ax.set_xticks([0, 1], list(frame["name"].iloc[:1]) * 2)

    return FigureSpec(
        name="lines",
        summary="",
        commands=(),
        needs="",
        make="",
        suits=bool,
        frame=DataFrame,
        draw=draw,
    )


def _frame(name: str) -> DataFrame:
    return DataFrame({"name": [name] * 2, PANEL: [name] * 2, "x": [0, 1], "y": [0.5, 0.25]})


def _pixels(figure: Figure) -> np.ndarray:
    content = io.BytesIO()
    save(figure, content, format="png", dpi=80, about={"title": "t", "description": "d"})
    return np.asarray(Image.open(content).convert("RGB"))


def _texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize(
    "settings",
    [
        {"text.usetex": True},
        {"axes.facecolor": "black", "figure.facecolor": "black", "text.color": "white"},
        {"savefig.bbox": "tight"},
        {"savefig.transparent": True, "savefig.facecolor": "red"},
        {"font.size": 30, "font.family": "monospace"},
        {"axes.unicode_minus": False, "axes.formatter.use_mathtext": True},
        {"lines.linestyle": "--", "lines.linewidth": 9, "patch.edgecolor": "red"},
    ],
)
def test_settings_of_the_user_change_nothing(settings: dict[str, object]) -> None:
    reference = _pixels(render(_spec(), _frame("a"), title="t"))
    with matplotlib.rc_context(settings):
        figure = render(_spec(), _frame("a"), title="t")
        assert np.array_equal(_pixels(figure), reference)
        for name, value in settings.items():
            assert matplotlib.rcParams[name] in (value, [value])


@pytest.mark.parametrize(
    "content",
    [b"", b"text.usetex: True", b"savefig.bbox: tight", b"nonsense\n: :\n", b"\xff\xfe no text"],
)
def test_a_file_of_settings_in_the_working_folder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "matplotlibrc").write_bytes(content)
    program = (
        "from eexit_cli.core.matplotlib_import import import_matplotlib\n"
        "import os\n"
        "here = os.getcwd()\n"
        "import_matplotlib()\n"
        "assert os.getcwd() == here and os.environ['MPLBACKEND'] == 'NoSuchBackend'\n"
        "import matplotlib\n"
        "assert not matplotlib.rcParams['text.usetex']\n"
        "assert matplotlib.rcParams['savefig.bbox'] is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={
            **os.environ,
            "MPLBACKEND": "NoSuchBackend",
            "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_names_are_text(form: str) -> None:
    figure = render(_spec(), _frame(HOSTILE), title=HOSTILE)
    shown = r"_m $x_1$ \alpha %s{} ^2 \x1b[31m \x07 \u202e"
    content = io.BytesIO()
    save(figure, content, format=form, dpi=80, about={"title": shown, "description": shown})
    named = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    # The title above all, the panel's, two ticks, the legend.
    assert len(named) >= 5
    for text in named:
        assert text.get_text().replace("\n", " ").strip() == shown
        assert not text.get_parse_math()
        assert not text.get_usetex()
    (legend,) = figure.legends
    # matplotlib drops a name that begins with "_".
    assert [text.get_text() for text in legend.get_texts()] == [f" {shown}"]
    if form == "svg":
        ElementTree.fromstring(content.getvalue())


def test_letters_without_a_glyph_are_written_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "_FALLBACKS", ())
    lettering._fonts.cache_clear()
    lettering._has_glyph.cache_clear()
    assert printable("中 π é →") == r"\u4e2d π é →"
    assert lacking(_frame("中文 π"), "題") == ["中", "文", "題"]
    shown = _texts(render(_spec(), _frame("模型"), title="題"))
    assert r"\u6a21\u578b" in shown
    assert r"\u984c" in shown

    told: list[str] = []

    class Told(SilentProgress):
        def message(self, text: str) -> None:
            told.append(text)

    store = ResultStore(tmp_path / "results")
    run = attack_run(store)
    config = PlotConfig(
        figure="slowdown",
        results_dir=store.results_dir,
        runs=(run.id,),
        title="中文",
        output=tmp_path / "a.png",
    )
    run_plot(config, progress=Told())
    assert any(line.startswith("No font here has 中 文: written out by number.") for line in told)


def test_a_font_of_this_machine_prints_what_ours_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 0))
    pen.lineTo((500, 700))
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "zhong"])
    builder.setupCharacterMap({ord("中"): "zhong"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "zhong": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "zhong": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Tiny Han", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    path = tmp_path / "tiny.ttf"
    builder.save(path)
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(path)
    monkeypatch.setattr(lettering, "_FALLBACKS", ("No Such Font", "Tiny Han"))
    try:
        lettering._fonts.cache_clear()
        lettering._has_glyph.cache_clear()
        assert lettering.families() == [lettering.OWN, "Tiny Han"]
        assert printable("中文") == r"中\u6587"
        figure = render(_spec(), _frame("中"))
        assert "中" in _texts(figure)
        for form in ("png", "svg", "pdf"):
            save(figure, io.BytesIO(), format=form, dpi=80, about={"title": "", "description": ""})
    finally:
        font_manager.fontManager.ttflist = before
        lettering._fonts.cache_clear()
        lettering._has_glyph.cache_clear()


def test_every_figure_is_drawn_without_a_window() -> None:
    for name in FIGURES:
        FIGURES.load(name)
    program = (
        "from eexit_cli.core.matplotlib_import import import_matplotlib\n"
        "import_matplotlib()\n"
        "import sys, eexit_cli.plots.rendering\n"
        "from eexit_cli.plots import FIGURES\n"
        "[FIGURES.load(name) for name in FIGURES]\n"
        "assert not {'matplotlib.pyplot', 'matplotlib.style'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_runs_of_models_whose_names_are_no_unicode(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results")
    first, second = (attack_run(store, model=name) for name in ("m\udce9", "_n"))
    for figure in ("slowdown", "exits", "efficacy"):
        config = PlotConfig(
            figure=figure,
            results_dir=store.results_dir,
            runs=(first.id, second.id),
            output=tmp_path / f"{figure}.svg",
        )
        assert run_plot(config) == [config.output]
