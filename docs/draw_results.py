"""Draw docs/results.svg, the front page's figure, from the published results.

python docs/draw_results.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import log10
from pathlib import Path

from lesiontk.bench.benchmark import Benchmark, EngineRow
from lesiontk.stage import EngineName

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURE = ROOT / "docs" / "results.svg"
RECIPES = ("cnn_7class", "efficientnet_lite0_7class", "vgg16_7class", "resnet152v2_7class")
COLOURS = ("#0072B2", "#009E73", "#D55E00", "#7B3294")
SMALL = "tflite:int8"

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 744, 18, 348
MEGABYTES, ACCURACIES = (0.2, 400.0), (0.45, 0.80)


@dataclass(frozen=True, slots=True)
class Engine:
    """File size in MB (1,000,000 bytes); balanced accuracy with its 95 % interval."""

    size: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A network in float32 as it was trained, and its published int8 engine."""

    name: str
    before: Engine
    after: Engine
    speedup: float


def read_pair(recipe: str) -> Pair:
    """Return what a published result states; sizes are those of the TFLite files."""
    document = json.loads((RESULTS / f"{recipe}.json").read_text(encoding="utf-8"))
    rows = Benchmark.from_document(document["benchmark"]).by_target
    replaced = document.get("replaced", {})
    small = EngineRow.from_document(replaced[SMALL]["row"]) if SMALL in replaced else rows[SMALL]
    whole = rows.get(EngineName("keras:float32", reference=True), rows["keras:float32"])
    versus, size = small.versus_parent, small.size_bytes / 1e6
    return Pair(
        recipe.removesuffix("_7class"),
        engine_from(whole, size * versus.size_ratio),
        engine_from(small, size),
        versus.speedup,
    )


def engine_from(row: EngineRow, size: float) -> Engine:
    found = row.metrics["balanced_accuracy"]
    return Engine(size, found.value, found.low, found.high)


def x_of(megabytes: float) -> float:
    low, high = map(log10, MEGABYTES)
    return LEFT + (log10(megabytes) - low) / (high - low) * (RIGHT - LEFT)


def y_of(accuracy: float) -> float:
    low, high = ACCURACIES
    return BOTTOM - (accuracy - low) / (high - low) * (BOTTOM - TOP)


def draw(pairs: list[Pair]) -> str:
    """Return the figure as SVG; the same bytes for the same results."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13" fill="#1f2937">',
        "<title>Balanced accuracy and file size before and after compression to int8</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *draw_axes(),
    ]
    for pair, colour in zip(pairs, COLOURS, strict=True):
        lines += draw_pair(pair, colour)
    return "\n".join([*lines, "</svg>"]) + "\n"


def draw_axes() -> Iterator[str]:
    for accuracy in (0.5, 0.6, 0.7, 0.8):
        y = y_of(accuracy)
        yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="#e5e7eb"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{accuracy:.1f}</text>'
    for megabytes in (0.3, 1, 3, 10, 30, 100, 300):
        x = x_of(megabytes)
        yield f'<path d="M{x:.1f} {BOTTOM}v5" stroke="#6b7280"/>'
        yield f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{megabytes}</text>'
    yield f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="#6b7280"/>'
    middle = (LEFT + RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">TFLite file, MB</text>'
    yield (
        f'<text transform="translate(18 {(TOP + BOTTOM) / 2:.0f}) rotate(-90)" '
        'text-anchor="middle">balanced accuracy, seven classes</text>'
    )
    yield f'<circle cx="{LEFT + 20}" cy="{BOTTOM - 40}" r="5" fill="white" stroke="#1f2937"/>'
    yield f'<text x="{LEFT + 34}" y="{BOTTOM - 36}">float32, as trained</text>'
    yield f'<circle cx="{LEFT + 20}" cy="{BOTTOM - 20}" r="5"/>'
    yield f'<text x="{LEFT + 34}" y="{BOTTOM - 16}">int8; lines are 95 % intervals</text>'


def draw_pair(pair: Pair, colour: str) -> Iterator[str]:
    ends = [(x_of(e.size), y_of(e.value), e) for e in (pair.before, pair.after)]
    for x, _, engine in ends:
        span = f"M{x:.1f} {y_of(engine.low):.1f}V{y_of(engine.high):.1f}"
        yield f'<path d="{span}" stroke="{colour}" opacity="0.45"/>'
    (x1, y1, _), (x2, y2, _) = ends
    yield f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="2"/>'
    yield f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="5" fill="white" stroke="{colour}"/>'
    yield f'<circle cx="{x2:.1f}" cy="{y2:.1f}" r="5" fill="{colour}"/>'
    x, y = (x1 + x2) / 2, min(y1, y2)
    for offset, text in ((26, pair.name), (10, f"{pair.speedup:.1f}× faster")):
        yield (
            f'<text x="{x:.1f}" y="{y - offset:.1f}" text-anchor="middle" fill="{colour}">'
            f"{text}</text>"
        )


if __name__ == "__main__":
    FIGURE.write_text(draw([read_pair(recipe) for recipe in RECIPES]), encoding="utf-8")
