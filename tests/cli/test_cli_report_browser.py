"""The page in a browser: nothing in it executes but its own script, which sorts and searches."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic_reports import HOSTILE, hostile_run, page_of

from eexit_cli.store.results import ResultStore

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = ResultStore(tmp_path_factory.mktemp("browser") / "results")
    return page_of(store, hostile_run(store), title=HOSTILE[3])


def opened(page: str, folder: Path) -> str:
    """The document as it stands once a browser has run all that it will run."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000"),
            *("--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return done.stdout


def driven(page: str, program: str, folder: Path) -> str:
    """What a program says that uses the page: it runs in a copy without the policy."""
    free = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    program = f"<script>document.documentElement.dataset.said = (() => {{{program}}})()</script>"
    said = re.search(r'data-said="([^"]*)"', opened(free.replace("</body>", program), folder))
    assert said is not None
    return said[1]


def test_hostile_texts_do_not_run(page: str, tmp_path: Path) -> None:
    seen = opened(page, tmp_path)
    assert "data-run" not in seen[: seen.index(">", seen.index("<html"))]
    assert 'role="button"' in seen  # our own script did run


def test_nor_do_they_without_the_policy(page: str, tmp_path: Path) -> None:
    """The policy is the second lock; the first holds alone."""
    program = "return 'run' in document.documentElement.dataset"
    assert driven(page, program, tmp_path) == "false"


def test_what_would_run_is_stopped_by_the_policy(page: str, tmp_path: Path) -> None:
    """And the second holds where the first were to fail."""
    broken = page.replace("</h1>", f"</h1>{HOSTILE[0]}{HOSTILE[1]}", 1)
    seen = opened(broken, tmp_path)
    assert "data-run" not in seen[: seen.index(">", seen.index("<html"))]
    program = "return 'run' in document.documentElement.dataset"
    assert driven(broken, program, tmp_path) == "true"


SORT = """
const table = document.querySelector("table[data-searchable]");
const named = (name) => [...table.tHead.rows[0].cells].find((th) => th.textContent === name);
const values = () => [...table.tBodies[0].rows]
  .map((row) => Number(row.cells[named("Queries").cellIndex].textContent));
const press = (key) => named("Queries").firstElementChild.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const ordered = (list, sign) => list.every((v, i) => i === 0 || sign * (v - list[i - 1]) >= 0);
"""


def test_a_column_sorts_by_click_and_by_key(page: str, tmp_path: Path) -> None:
    program = (
        SORT
        + """
const said = [];
const look = () => said.push([
  named("Queries").getAttribute("aria-sort"), ordered(values(), 1), ordered(values(), -1)]);
named("Exit before").firstElementChild.click(); look();
named("Queries").firstElementChild.click(); look();
press("Enter"); look();
press(" "); look();
press("x"); look();
return said.join(" ");
"""
    )
    assert driven(page, program, tmp_path).split() == [
        ",false,false",
        "ascending,true,false",
        "descending,false,true",
        "ascending,true,false",
        "ascending,true,false",
    ]


def test_searching_hides_the_rows_without_the_words(page: str, tmp_path: Path) -> None:
    program = """
const field = document.querySelector("input[type=search]");
const rows = [...document.querySelectorAll("table[data-searchable] tbody tr")];
const search = (words) => {
  field.value = words;
  field.dispatchEvent(new Event("input"));
  const shown = rows.filter((row) => !row.hidden);
  return [shown.length, shown.every((row) => row.textContent.includes("half of a character")),
    document.querySelector("output").textContent].join();
};
return [rows.length, search("HALF  film character"), search("no such word"), search("")].join(";");
"""
    total = 2 * len(HOSTILE)
    assert driven(page, program, tmp_path) == (
        f"{total};2,true,2 of {total};0,true,0 of {total};{total},false,"
    )
