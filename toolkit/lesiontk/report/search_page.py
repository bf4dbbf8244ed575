"""The page of a search as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

import yaml

from lesiontk.report import search_words
from lesiontk.report.render import make_environment
from lesiontk.report.search_plots import plot_front, plot_importance, plot_parallel
from lesiontk.search.result import SearchResult, is_measured_on_validation, list_measured
from lesiontk.search.winner import SOURCE

TEMPLATE = "search.html.j2"


def write_search_page(result: SearchResult, path: Path) -> None:
    """Write the page in UTF-8; equal results give equal bytes."""
    path.write_text(render_search_page(result), encoding="utf-8")


def render_search_page(result: SearchResult) -> str:
    """Return the page as HTML; all text from the result is escaped."""
    shown = result.figure_names
    own = {t.number for t in list_measured(result.trials).values()}
    return (
        make_environment()
        .get_template(TEMPLATE)
        .render(
            result=result,
            words=search_words,
            shown=shown,
            objective_names=", ".join(map(search_words.name_figure, result.objectives)),
            tested=[name for name in shown if is_measured_on_validation(name)],
            own=own,
            noisy=[t for t in result.trials if t.figures is not None and t.figures.noise],
            first=next((t.figures for t in result.trials if t.figures is not None), None),
            source=SOURCE,
            pictures={
                "front": plot_front(result),
                "parallel": plot_parallel(result),
                "importance": plot_importance(result),
            },
            space_text=yaml.safe_dump(dict(result.space), sort_keys=False, allow_unicode=True),
        )
    )
