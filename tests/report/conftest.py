"""One report with everything in it, drawn once."""

from __future__ import annotations

import pytest

from lesiontk.report.render import (
    ReportData,
    draw_pictures,
    render_report,
)
from tests.report.page import Page
from tests.report.sample_report import make_report_data


@pytest.fixture(scope="session")
def sample() -> ReportData:
    return make_report_data(noise=0.8, max_drop=0.01)


@pytest.fixture(scope="session")
def html(sample: ReportData) -> str:
    return render_report(sample, draw_pictures(sample))


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)
