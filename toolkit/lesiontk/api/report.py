"""The report: one HTML file with all results."""

from __future__ import annotations

import logging
import webbrowser
from html import escape
from pathlib import Path

from lesiontk.api.progress import in_notebook
from lesiontk.api.stored import Stored

logger = logging.getLogger(__name__)

HEIGHT = 800
"""Height of a report's frame in a notebook, in pixels."""


class Report(Stored):
    """A report in the workspace; `file` is the self-contained HTML file."""

    @property
    def file(self) -> Path:
        """The HTML file."""
        return self.artefact.file("report.html")

    @property
    def exports(self) -> tuple[Path, ...]:
        """The same content as JSON and Markdown, and all figures as CSV."""
        from lesiontk.report.exports import CSV, JSON, MARKDOWN

        return tuple(self.artefact.file(name) for name in (JSON, CSV, MARKDOWN))

    def show(self) -> None:
        """Show the report: in the notebook, or in a browser."""
        if in_notebook():
            from IPython.display import display

            display(self)
        elif not webbrowser.open(self.file.resolve().as_uri()):
            logger.warning("no browser was found; open %s", self.file)

    def _repr_html_(self) -> str:
        page = escape(self.file.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="{HEIGHT}" sandbox></iframe>'
