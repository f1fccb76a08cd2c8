"""Runs full of texts that try to be more than text, and the page that is made of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from synthetic_runs import attack_figures

from eexit_cli.config.report import ReportConfig
from eexit_cli.pipelines.report import run_report
from eexit_cli.store.results import ResultStore, Run
from eexit_cli.ui.report.page import render_page

MARK = "document.documentElement.setAttribute('data-run','yes')"
"""What every hostile text tries to do; a page that let one do it is found by the attribute."""

HOSTILE = [
    f"<script>{MARK}</script>",
    f'"><img src=x onerror="{MARK}">',
    f"' onmouseover='{MARK}' x='",
    f"</script><script>{MARK}</script>",
    f"</style></title></svg><svg onload={MARK}>",
    f"<!-- --!><script>{MARK}</script> -->",
    f"]]><script>{MARK}</script><![CDATA[",
    "{{ 12345 * 6789 }}{% raw %}{{ config }}",
    "[bold]markup[/] of [link=javascript:alert(1)]rich[/link]",
    "javascript:alert(1)",
    "\u202eturned around\u2066 and hidden\u200f",
    "bell\x07 escape\x1b[31m null\x00 next\x85 line\u2028",
    "half of a character \ud83d",
    "w" * 3000,
    "\u05e9\u05dc\u05d5\u05dd \u4e2d\u6587 $x^2$ &amp; &lt;b&gt;",
]


def hostile_run(store: ResultStore, texts: list[str] = HOSTILE, *, layers: int = 6) -> Run:
    """An attack whose every text, name and label is one of ``texts``."""
    said = [texts[i % len(texts)] for i in range(len(texts) * 2)]
    before = np.array([1 + i % layers for i in range(len(said))])
    after = np.full(len(said), layers)
    config: dict[str, Any] = {
        "model": texts[0],
        "task": texts[1],
        "split": texts[2],
        "data_file": texts[3],
        "recipe": texts[4],
        "exit": {"criterion": texts[5], "threshold": 0.5},
        "classes": [texts[6], texts[7]],
        "notes": dict(zip(texts, reversed(texts), strict=True)),
    }
    with store.create("attack", config) as run:
        for row, text in enumerate(said):
            run.append(
                {
                    "id": f"{row} {text}",
                    "text": f"a {text} film",
                    "perturbed_text": f"a {text} movie",
                    "changed_words": [{"position": 2, "from": "film", "to": "movie"}],
                    "label": row % 2,
                    "status": "attacked",
                    "reason": text,
                    "recipe": texts[4],
                    "prediction_before": row % 2,
                    "prediction_after": 1 - row % 2,
                    "exit_layer_before": int(before[row]),
                    "exit_layer_after": int(after[row]),
                    "progress": [[1, int(before[row])], [9, int(after[row])]],
                    "queries": row,
                }
            )
        figures = attack_figures(before, after, layers)
        rows = [{"recipe": texts[4], **figures}, {"recipe": texts[8], "status": texts[9]}]
        report = {"metrics_of": texts[4], "comparisons": []}
        run.finish(metrics=figures, rows=rows, report=report)
    return run


def page_of(store: ResultStore, *runs: Run, **options: Any) -> str:
    """The page that ``eexit report`` writes of runs."""
    output = Path(store.results_dir).parent / "page.html"
    config = ReportConfig(
        runs=tuple(run.id for run in runs),
        results_dir=store.results_dir,
        output=output,
        **options,
    )
    written = run_report(config, page=lambda contents: render_page(config, contents))
    assert written == output
    return output.read_text(encoding="utf-8")
