"""A parsed report, for tests to look at."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from lesiontk.report.render import ReportData, draw_pictures, render_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A parsed page; a tag that is not closed in its order is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._region = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if attributes.get("role") == "region":
            self._region = attributes["aria-label"] or ""
            assert self._region not in self.tables
            self.tables[self._region] = []
        if tag == "tr":
            self.tables[self._region].append([])
        if tag in ("td", "th"):
            self.tables[self._region][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.pieces.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[self._region][-1][-1] += data

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        return re.sub(r"[ \n]+", " ", "".join(self.pieces))

    def values(self, attribute: str) -> list[str]:
        """Every value of an attribute."""
        return [a[attribute] or "" for _, a in self.tags if attribute in a]


def read(data: ReportData) -> Page:
    """Return the page without figures: they take most of the time."""
    return Page(render_report(data, {}))


def read_with_figures(data: ReportData) -> Page:
    """Return the page as a user gets it."""
    return Page(render_report(data, draw_pictures(data)))
