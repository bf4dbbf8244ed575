"""Dermoscopic structures as functions of a position on the skin.

A structure is a field over a `Skin`, the coordinates of one camera view. The number of random
numbers it draws does not depend on the pixels, so one generator gives the same structure under any
rotation, zoom or image size. `Tissue` converts fields to colour: melanin and blood absorb light
(Beer-Lambert), so they multiply; keratin, scar and the blue veil of deep melanin scatter it, so
they cover what is below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Field = NDArray[np.float32]
Colour = tuple[float, float, float]
Coat = tuple[Field, Colour]
Polyline = tuple[NDArray[np.float64], float]
_Index = NDArray[np.int32]

# Optical density of one unit, for red, green and blue: a plain naevus has about one of melanin.
_MELANIN = np.array([0.46, 0.69, 0.88], np.float32)
_BLOOD = np.array([0.10, 0.66, 0.58], np.float32)

# Random tables repeat after a power of two, so that an index wraps by a mask and not a division.
_TILE = 32
_WRAP = _TILE - 1
_SUPERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Skin:
    """A piece of skin in one camera view.

    `u` and `v`, [H, W], are the place of every pixel in skin units: the lesion's centre is (0, 0)
    and one unit is about half the height of the image. `pixels_from_skin`, [2, 3], takes
    (u, v, 1) back to pixels (x, y).
    """

    u: Field
    v: Field
    pixels_from_skin: NDArray[np.float64]

    @property
    def pixels_per_unit(self) -> float:
        """Pixels per skin unit."""
        return float(np.hypot(*self.pixels_from_skin[:, 0]))


@dataclass(frozen=True, slots=True)
class Tissue:
    """The optical effect of a lesion: absorbing melanin and blood [H, W], and scattering coats.

    A coat is its opacity [H, W] in 0 to 1 with its colour in 0 to 255; later coats are on top.
    """

    melanin: Field
    blood: Field
    coats: tuple[Coat, ...] = ()

    def colour_over(self, tone: Field) -> Field:
        """Return the colour [H, W, 3], 0 to 255, of this tissue in skin of colour `tone`."""
        density = self.melanin[..., None] * _MELANIN + self.blood[..., None] * _BLOOD
        colour: Field = tone * np.exp(-np.maximum(density, 0.0))
        for opacity, coat in self.coats:
            colour = cover(colour, np.clip(opacity, 0.0, 1.0), coat)
        return colour


def cover(colour: Field, opacity: Field, coat: Colour) -> Field:
    """Return an image [H, W, 3] under a coat of `opacity` [H, W] in 0 to 1."""
    return colour + opacity[..., None] * (np.array(coat, np.float32) - colour)


def ramp(values: Field, low: float, high: float) -> Field:
    """Return a smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    step: Field = t * t * (3.0 - 2.0 * t)
    return step


def _lattice(skin: Skin, spacing: float) -> tuple[_Index, _Index, Field, Field]:
    """Return column and row of each pixel's lattice cell, and the position in it, 0 to 1."""
    u, v = skin.u / np.float32(spacing), skin.v / np.float32(spacing)
    left, top = np.floor(u), np.floor(v)
    return left.astype(np.int32), top.astype(np.int32), u - left, v - top


def noise(skin: Skin, rng: Generator, spacing: float) -> Field:
    """Return a smooth random field [H, W], mean 0, deviation about 1, grain size `spacing`."""
    knots = rng.standard_normal(_TILE * _TILE, dtype=np.float32)
    column, row, u, v = _lattice(skin, spacing)
    columns = [(column + step) & _WRAP for step in range(3)]
    field = np.zeros_like(u)
    for step, weight_v in enumerate(_spline(v)):
        line = ((row + step) & _WRAP) * _TILE
        for across, weight_u in zip(columns, _spline(u), strict=True):
            field += weight_v * weight_u * knots.take(line + across)
    # The spline averages over its knots, which reduces the deviation; 1.8 restores it.
    return np.float32(1.8) * field


def _spline(t: Field) -> tuple[Field, Field, Field]:
    """Return the weights of three neighbouring knots in a quadratic B-spline, without seams."""
    return 0.5 * (1 - t) ** 2, 0.5 + t * (1 - t), 0.5 * t * t


def warp(skin: Skin, rng: Generator, amount: float, spacing: float) -> Skin:
    """Return the skin with coordinates warped by `amount` units, for natural patterns."""
    return replace(
        skin,
        u=skin.u + amount * noise(skin, rng, spacing),
        v=skin.v + amount * noise(skin, rng, spacing),
    )


@dataclass(frozen=True, slots=True)
class Cells:
    """A jittered honeycomb, all [H, W]: the base of nets, globules, lacunae and follicles.

    `centre` is the distance to the nearest cell's middle and `edge` the margin to the next one,
    both in units of the spacing; `tint` is one random number in 0 to 1 for each cell.
    """

    centre: Field
    edge: Field
    tint: Field


def cells(skin: Skin, rng: Generator, spacing: float, jitter: float = 0.7) -> Cells:
    """Return Worley's cellular texture (SIGGRAPH 1996) over a jittered grid of points."""
    places = (0.5 + jitter * (rng.random((2, _TILE * _TILE)) - 0.5)).astype(np.float32)
    tints = rng.random(_TILE * _TILE).astype(np.float32)
    column, row, u, v = _lattice(skin, spacing)
    nearest = np.full(u.shape, 9.0, np.float32)
    second, owner = nearest.copy(), np.zeros_like(column)
    for step_v in (-1, 0, 1):
        line = ((row + step_v) & _WRAP) * _TILE
        for step_u in (-1, 0, 1):
            cell = line + ((column + step_u) & _WRAP)
            away = (places[0].take(cell) + (step_u - u)) ** 2
            away += (places[1].take(cell) + (step_v - v)) ** 2
            np.copyto(owner, cell, where=away < nearest)
            np.minimum(second, np.maximum(nearest, away), out=second)
            np.minimum(nearest, away, out=nearest)
    centre = np.sqrt(nearest)
    return Cells(centre, edge=np.sqrt(second) - centre, tint=tints.take(owner))


def strokes(skin: Skin, lines: list[Polyline]) -> Field:
    """Return the coverage [H, W], 0 to 1, of polylines: points [N, 2] and a width in units."""
    height, width = skin.u.shape
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for points, thickness in lines:
        pixels = points @ skin.pixels_from_skin[:, :2].T + skin.pixels_from_skin[:, 2]
        exact = thickness * skin.pixels_per_unit * _SUPERSAMPLING
        # A line thinner than a pixel is drawn one pixel wide and fainter.
        pen.line(
            [(float(x), float(y)) for x, y in (pixels + 0.5) * _SUPERSAMPLING],
            fill=round(255 * min(1.0, exact)),
            width=max(1, round(exact)),
            joint="curve",
        )
    coverage = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255.0
    softened: Field = ndimage.gaussian_filter(coverage, 0.006 * skin.pixels_per_unit)
    return softened


def depth_inside(
    skin: Skin, rng: Generator, radius: float, elongation: float, irregularity: float
) -> Field:
    """Return each pixel's depth inside a lesion's outline in skin units; negative is outside.

    The outline is an ellipse whose radius varies with the angle by harmonics 2 to 8 of falling
    size, `irregularity` being the deviation relative to the radius.
    """
    orders = np.arange(2, 9)
    sizes = rng.standard_normal(orders.size) / orders**0.7
    sizes *= irregularity / max(float(np.sqrt(np.sum(sizes**2) / 2)), 1e-6)
    phases, turn = rng.uniform(0, 2 * np.pi, orders.size), rng.uniform(0, np.pi)
    stretch = math.sqrt(elongation)
    along = (skin.u * math.cos(turn) + skin.v * math.sin(turn)) / stretch
    across = (skin.v * math.cos(turn) - skin.u * math.sin(turn)) * stretch
    table = np.linspace(-np.pi, np.pi, 181)
    outline = 1 + np.sum(sizes * np.cos(orders * table[:, None] + phases), axis=1)
    angle = np.arctan2(across, along)
    border = radius * np.interp(angle, table, outline).astype(np.float32)
    return np.asarray(border - np.hypot(along, across), np.float32)


def net(skin: Skin, rng: Generator, spacing: float, boldness: float) -> Field:
    """Return a pigment network: dark lines around pale holes; a typical `boldness` is 1."""
    edge = cells(warp(skin, rng, 0.25 * spacing, 2 * spacing), rng, spacing).edge
    return (1.0 - ramp(edge, 0.0, 0.5 * boldness)) * (0.85 + 0.25 * noise(skin, rng, 0.3))


def dots(skin: Skin, rng: Generator, spacing: float, size: float, share: float) -> Field:
    """Return round spots of `size` (in spacings) in a `share` of the cells of a jittered grid."""
    grid = cells(skin, rng, spacing, jitter=0.9)
    reach = size * (0.6 + 0.4 * grid.tint / max(share, 1e-6))
    return (grid.tint < share) * (1 - ramp(grid.centre / reach, 0.65, 1.15))


def ovoids(skin: Skin, rng: Generator, count: int, size: float, spread: float) -> Field:
    """Return `count` soft-edged ovals of about `size` units within `spread` of the centre."""
    painted = np.zeros_like(skin.u)
    for _ in range(count):
        angle, distance = rng.uniform(0, 2 * np.pi), spread * math.sqrt(rng.uniform(0, 1))
        turn, reach, aspect = rng.uniform(0, np.pi), size * rng.uniform(0.6, 1.5), rng.uniform(1, 2)
        u = skin.u - distance * math.cos(angle)
        v = skin.v - distance * math.sin(angle)
        along = u * math.cos(turn) + v * math.sin(turn)
        across = v * math.cos(turn) - u * math.sin(turn)
        oval: Field = np.hypot(along / aspect, across)
        painted = np.maximum(painted, 1.0 - ramp(oval, 0.7 * reach, 1.15 * reach))
    return painted


def sector(skin: Skin, rng: Generator, softness: float = 0.4) -> Field:
    """Return an asymmetry mask: 1 on one side of a line near the centre, 0 on the other."""
    angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.25)
    side = skin.u * math.cos(angle) + skin.v * math.sin(angle)
    return ramp(side, shift - softness, shift + softness)


def vessel_trees(rng: Generator, trees: int, radius: float) -> list[Polyline]:
    """Return arborizing vessels: stems that enter from the border, bend, taper and fork."""
    lines: list[Polyline] = []

    def grow(start: NDArray[np.float64], heading: float, width: float, order: int) -> None:
        bends = np.cumsum(rng.normal(0, 0.28, 7)) + heading
        steps = rng.uniform(0.05, 0.1) * radius * np.column_stack((np.cos(bends), np.sin(bends)))
        points = np.vstack((start, start + 1.8 * np.cumsum(steps, axis=0)))
        lines.append((points, width))
        if order == 0:
            return
        for fork in (3, 6):
            side = rng.choice((-1, 1)) * rng.uniform(0.45, 1.0)
            grow(points[fork], float(bends[fork - 1] + side), width * 0.68, order - 1)

    for _ in range(trees):
        angle = rng.uniform(0, 2 * np.pi)
        start = rng.uniform(0.5, 1.0) * radius * np.array([math.cos(angle), math.sin(angle)])
        grow(start, angle + np.pi + rng.normal(0, 0.4), rng.uniform(0.014, 0.03), order=2)
    return lines
