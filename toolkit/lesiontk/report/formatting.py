"""Formatting of numbers: significant digits, a true minus sign, a dash for the unknown.

A value that rounds to zero has no sign: the ``z`` of a format specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lesiontk.evaluate.bootstrap import Estimate

DASH = "–"
MINUS = "−"
PERCENT = "\N{NO-BREAK SPACE}%"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class EstimateText:
    """A value and its interval as text; the interval is empty if there is none."""

    value: str
    interval: str


def format_number(value: float | None, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits and thousands separated by a thin space."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}".replace("-", MINUS)
    decimals = max(0, digits - 1 - magnitude)
    text = f"{value:,.{decimals}f}"
    # 0.9996 rounds to a number with one more digit before the point.
    if float(text.replace(",", "")) >= 10 ** (magnitude + 1) and decimals:
        text = f"{value:,.{decimals - 1}f}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", MINUS)


def format_plain(value: float) -> str:
    """Return a setting or a bound with at most three significant digits and no trailing zeros."""
    text = format_number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def format_count(value: int | None) -> str:
    """Return a whole number with thousands separated by a thin space."""
    return DASH if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def format_percent(value: float | None) -> str:
    """Return a share 0..1 as ``77.1 %``."""
    return DASH if value is None else f"{100 * value:z.1f}{PERCENT}".replace("-", MINUS)


def count_things(count: int, singular: str, plural: str = "") -> str:
    """Return ``1 file``, ``2 files``; the plural is the singular with an s unless given."""
    return f"{format_count(count)} {singular if count == 1 else plural or singular + 's'}"


def format_level(value: float) -> str:
    """Return a confidence level 0..1 as ``95 %``."""
    return f"{100 * value:g}{PERCENT}"


def format_exact_share(value: float | None) -> str:
    """Return a share as `format_percent`, with 100 % and 0 % only for exactly all and none."""
    if value is not None and 0.9995 <= value < 1:
        return f"> 99.9{PERCENT}"
    if value is not None and 0 < value < 0.0005:
        return f"< 0.1{PERCENT}"
    return format_percent(value)


def format_points(value: float | None) -> str:
    """Return a difference of shares in percentage points with its sign, such as ``−0.4``."""
    if value is None:
        return DASH
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def format_decimal(value: float | None) -> str:
    """Return a score 0..1 with three decimals."""
    return DASH if value is None else f"{value:z.3f}".replace("-", MINUS)


def format_ratio(value: float | None) -> str:
    """Return ``2.78×``."""
    return DASH if value is None else f"{format_number(value)}×"


def format_ratio_interval(ends: Sequence[float] | None) -> str:
    """Return ``2.73–2.84``, or an empty text for None."""
    return "–".join(map(format_number, ends)) if ends else ""


def format_bytes(size: float | None) -> str:
    """Return bytes with three significant digits in the best decimal unit."""
    if size is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{format_number(size)} {unit}"


def format_latency(milliseconds: float | None) -> str:
    """Return ``0.189 ms``."""
    return DASH if milliseconds is None else f"{format_number(milliseconds)} ms"


def format_duration(seconds: float | None) -> str:
    """Return seconds as ``33 s``, ``12 min`` or ``3 h 25 min``."""
    if seconds is None:
        return DASH
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def format_p_value(value: float | None) -> str:
    """Return a p-value; below 0.001 only ``< 0.001``."""
    if value is None:
        return DASH
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _format_estimate(
    estimate: Estimate | None, show: Callable[[float | None], str], joint: str
) -> EstimateText:
    if estimate is None or estimate.value is None:
        return EstimateText(DASH, "")
    low, high = estimate.low, estimate.high
    interval = "" if low is None else f"{show(low).removesuffix(PERCENT)}{joint}{show(high)}"
    return EstimateText(show(estimate.value), interval)


def share_estimate(estimate: Estimate | None) -> EstimateText:
    """Return an estimate of a share as ``77.1 %`` and ``66.2–88.8 %``."""
    return _format_estimate(estimate, format_percent, "–")


def decimal_estimate(estimate: Estimate | None) -> EstimateText:
    """Return an estimate of a score as ``0.990`` and ``0.978–0.997``."""
    return _format_estimate(estimate, format_decimal, "–")


def points_estimate(estimate: Estimate | None) -> EstimateText:
    """Return an estimate of a difference as ``−0.4`` and ``−1.2 to +0.5`` percentage points."""
    return _format_estimate(estimate, format_points, " to ")
