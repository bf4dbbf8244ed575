"""Seven kinds of lesion, each rendered from its dermoscopic structures.

A painter takes a `Skin` and a lesion's own random generator and returns its `Tissue`. The criteria
are those of the third consensus on dermoscopic terms (Kittler et al., J Am Acad Dermatol 2016,
74(6):1093-1106), as caricatures for demonstrations and tests, without medical value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from lesiontk.data.synthetic.structures import (
    Colour,
    Skin,
    Tissue,
    cells,
    depth_inside,
    dots,
    net,
    noise,
    ovoids,
    ramp,
    sector,
    strokes,
    vessel_trees,
    warp,
)

_WHITE: Colour = (238.0, 218.0, 210.0)
_PINK: Colour = (244.0, 206.0, 200.0)
_KERATIN: Colour = (240.0, 226.0, 188.0)
_PLUG: Colour = (232.0, 196.0, 140.0)
_GREY: Colour = (142.0, 128.0, 118.0)
_SLATE: Colour = (84.0, 92.0, 116.0)
_VEIL: Colour = (112.0, 126.0, 154.0)
_CRUST: Colour = (140.0, 62.0, 38.0)
_VESSEL: Colour = (176.0, 44.0, 48.0)
_PURPLE: Colour = (104.0, 40.0, 82.0)
_CLOT: Colour = (44.0, 26.0, 52.0)


def _clarity(rng: Generator) -> float:
    """Return how clearly a lesion shows its hallmarks, 0 to 1; one in six hardly does.

    Without such lesions every model would be perfect, and comparisons of models (quantization,
    pruning, gates) would show no difference.
    """
    return rng.uniform(0.0, 0.4) if rng.random() < 0.17 else rng.uniform(0.6, 1.0)


def _paint_actinic_keratosis(skin: Skin, rng: Generator) -> Tissue:
    """Actinic keratosis or Bowen's disease: pale follicles in red, scale, dotted vessels."""
    pick, clarity = rng.uniform, _clarity(rng)
    warped = warp(skin, rng, 0.05, 0.25)
    depth = depth_inside(warped, rng, pick(0.4, 0.78), pick(1, 1.6), pick(0.05, 0.13))
    body = ramp(depth, -0.15, pick(0.08, 0.25))
    follicles = cells(warp(skin, rng, 0.025, 0.12), rng, pick(0.11, 0.18))
    present = clarity * body * ramp(follicles.tint, 0.1, 0.5)
    halo = present * (1 - ramp(follicles.centre, 0.15, 0.5)) * pick(0.15, 0.8)
    plug = present * (1 - ramp(follicles.centre, 0.05, 0.22)) * pick(0.2, 0.9)
    flakes = noise(skin, rng, 0.09) + 0.8 * noise(skin, rng, 0.35)
    scale = clarity * body * ramp(flakes, pick(0.4, 1.0), 1.6) * pick(0.3, 1.0)
    blood = body * pick(0.3, 0.95) * (1 + 0.2 * noise(skin, rng, 0.3))
    blood += body * dots(skin, rng, 0.075, 0.32, 0.5) * pick(0.2, 1.2) * (rng.random() < 0.4)
    pigment = pick(0.3, 1.2) if rng.random() < 0.3 else 0.0
    melanin = pigment * body * (0.7 + 0.3 * noise(skin, rng, 0.2))
    return Tissue(melanin, blood, ((halo, _WHITE), (plug, _PLUG), (scale, _KERATIN)))


def _paint_basal_cell_carcinoma(skin: Skin, rng: Generator) -> Tissue:
    """Basal cell carcinoma: translucent pink, arborizing vessels, blue-grey nests, ulceration."""
    pick, clarity, radius = rng.uniform, _clarity(rng), rng.uniform(0.38, 0.75)
    warped = warp(skin, rng, 0.03, 0.2)
    depth = depth_inside(warped, rng, radius, pick(1, 1.5), pick(0.05, 0.13))
    body = ramp(depth, -0.1, pick(0.05, 0.22))
    blood = body * pick(0.2, 0.7) * (1 + 0.3 * noise(skin, rng, 0.3))
    sheen = body * (pick(0.1, 0.35) + 0.12 * noise(skin, rng, 0.25))
    trees = vessel_trees(rng, int(rng.integers(1, 5)), radius)
    vessels = strokes(skin, trees) * ramp(depth, -0.25, -0.05) * pick(0.5, 1.0)
    nests = ovoids(warped, rng, int(rng.integers(3, 9)), pick(0.05, 0.11), 0.8 * radius)
    nests *= pick(0.45, 0.85) * (0.8 + 0.2 * noise(skin, rng, 0.08)) * (rng.random() < 0.68)
    ulcer = 0.8 * ovoids(warped, rng, 1, 0.16 * radius, 0.5 * radius) * (rng.random() < 0.3)
    pigment = pick(0.4, 1.2) if rng.random() < 0.35 else 0.0
    melanin = pigment * body * ramp(noise(warped, rng, 0.25), 0.2, 1.0)
    coats = ((clarity * nests, _SLATE), (ulcer, _CRUST), (clarity * vessels, _VESSEL))
    return Tissue(melanin, blood, ((sheen, _PINK), *coats))


def _paint_benign_keratosis(skin: Skin, rng: Generator) -> Tissue:
    """Seborrhoeic keratosis or lentigo: stuck on and sharp-edged, with cysts, plugs and furrows."""
    pick, clarity = rng.uniform, _clarity(rng)
    warped = warp(skin, rng, 0.02, 0.1)
    depth = depth_inside(warped, rng, pick(0.38, 0.76), pick(1, 1.5), pick(0.03, 0.11))
    depth += pick(0.0, 0.04) * noise(skin, rng, 0.12)
    body = ramp(depth, -0.02, pick(0.02, 0.09))
    furrows = 1 - ramp(np.abs(noise(warped, rng, pick(0.1, 0.17))), 0.0, 0.5)
    plugs = dots(skin, rng, pick(0.12, 0.18), 0.34, pick(0.1, 0.4)) * pick(0.6, 1.8)
    cysts = body * dots(skin, rng, pick(0.13, 0.2), 0.26, pick(0.15, 0.5)) * pick(0.5, 0.95)
    melanin = body * pick(0.35, 1.4) * (1 + 0.2 * noise(skin, rng, 0.35))
    melanin += body * (0.25 + 0.75 * clarity) * furrows * pick(0.2, 0.9)
    # A lentigo has no horn but often a faint net, which makes it similar to a naevus.
    is_lentigo = rng.random() < 0.25
    horn = 0.0 if is_lentigo else clarity
    faint_net = body * net(skin, rng, pick(0.06, 0.09), 0.8) * pick(0.2, 0.6) * is_lentigo
    melanin += horn * body * plugs + faint_net
    dull = body * pick(0.1, 0.45) * (0.3 + 0.7 * horn)
    blood = body * pick(0.0, 0.45)
    return Tissue(melanin, blood, ((dull, _GREY), (horn * cysts, _KERATIN)))


def _paint_dermatofibroma(skin: Skin, rng: Generator) -> Tissue:
    """Dermatofibroma: a white, scar-like centre in a delicate ring of pigment network."""
    pick, clarity, radius = rng.uniform, _clarity(rng), rng.uniform(0.36, 0.68)
    warped = warp(skin, rng, 0.02, 0.2)
    depth = depth_inside(warped, rng, radius, pick(1, 1.35), pick(0.02, 0.08))
    body = ramp(depth, -0.12, pick(0.1, 0.2))
    core = depth + 0.05 * noise(skin, rng, 0.15)
    scar = clarity * ramp(core, pick(0.25, 0.45) * radius, pick(0.6, 0.8) * radius)
    threads = 1 - ramp(np.abs(noise(skin, rng, 0.12)), 0.0, 0.6)
    ring = net(skin, rng, pick(0.06, 0.09), pick(0.5, 0.9))
    melanin = body * (pick(0.2, 0.85) + pick(0.2, 0.9) * ring) * (1 - 0.6 * scar)
    blood = body * pick(0.1, 0.6) + scar * pick(0.0, 0.4)
    return Tissue(melanin, blood, ((scar * (pick(0.3, 0.75) + 0.25 * threads), _WHITE),))


def _paint_melanoma(skin: Skin, rng: Generator) -> Tissue:
    """Melanoma: asymmetric, notched, many colours, broken net, streaks and a blue-white veil."""
    pick, clarity = rng.uniform, _clarity(rng)
    warped = warp(skin, rng, 0.01 + 0.025 * clarity, 0.22)
    depth = depth_inside(
        warped, rng, pick(0.42, 0.8), pick(1.0, 1.6), pick(0.04, 0.07) + pick(0.03, 0.12) * clarity
    )
    active = sector(skin, rng)
    spokes = np.cos(
        int(rng.integers(22, 34)) * np.arctan2(warped.v, warped.u) + noise(skin, rng, 0.2)
    )
    depth += 0.06 * clarity * active * ramp(spokes, 0.0, 1.0) * (rng.random() < 0.4)
    body = ramp(depth, -0.04, pick(0.04, 0.15))
    patches = ramp(noise(warped, rng, 0.42), 0.1, 1.0)
    broken_net = net(warped, rng, pick(0.07, 0.13), pick(0.8, 1.5)) * ramp(
        noise(skin, rng, 0.5), -0.3 - (1 - clarity), 0.6
    )
    melanin = body * (pick(0.5, 1.0) + pick(0.3, 1.1) * active)
    melanin += body * (clarity * patches * pick(0.6, 2.2) + broken_net * pick(0.3, 1.1))
    spots = dots(warped, rng, 0.13, 0.36, 0.22) * pick(0.2, 1.8)
    melanin += clarity * ramp(depth, -0.1, 0.0) * spots
    blood = body * (pick(0.05, 0.45) + pick(0.0, 0.7) * ramp(noise(skin, rng, 0.5), 0.0, 1.0))
    veil = ramp(depth, 0.02, 0.2) * ramp(noise(warped, rng, 0.5), 0.0, 0.9) * pick(0.45, 0.8)
    scar = body * ramp(noise(warped, rng, 0.45), 0.5, 1.1) * pick(0.4, 0.8)
    pepper = scar * dots(skin, rng, 0.06, 0.35, 0.4)
    has_veil, has_scar = clarity * (rng.random() < 0.7), clarity * (rng.random() < 0.45)
    # One in twelve lacks pigment, the form that is missed most.
    melanin *= 0.25 if rng.random() < 0.08 else 1.0
    coats = ((has_veil * veil, _VEIL), (has_scar * scar, _WHITE), (has_scar * pepper, _SLATE))
    return Tissue(melanin, blood, coats)


def _paint_naevus(skin: Skin, rng: Generator) -> Tissue:
    """Melanocytic naevus: symmetric, one or two browns, a regular net or regular globules."""
    pick, clarity, radius = rng.uniform, _clarity(rng), rng.uniform(0.36, 0.74)
    is_atypical = rng.random() < 0.2
    roughness = pick(0.07, 0.12) if is_atypical else pick(0.02, 0.06)
    depth = depth_inside(warp(skin, rng, 0.015, 0.15), rng, radius, pick(1, 1.45), roughness)
    soft = pick(0.03, 0.15)
    body = ramp(depth, -soft, 1.3 * soft)
    # A dermal naevus is pink or skin-coloured and has little of a net.
    amount = pick(0.1, 0.4) if rng.random() < 0.1 else pick(0.45, 1.5)
    melanin = amount * body * (1 + pick(-0.35, 0.45) * ramp(depth, 0.0, 0.7 * radius))
    melanin *= 0.8 + 0.12 * noise(skin, rng, 0.4)
    if rng.random() < 0.7:
        pattern = net(skin, rng, pick(0.06, 0.095), pick(0.7, 1.1))
    else:
        pattern = dots(skin, rng, pick(0.075, 0.11), 0.42, 0.8)
    melanin += clarity * min(1.0, amount) * body * pattern * pick(0.4, 1.2)
    melanin += body * sector(skin, rng) * pick(0.3, 0.9) * is_atypical
    return Tissue(melanin, body * pick(0.05, 0.5))


def _paint_vascular_lesion(skin: Skin, rng: Generator) -> Tissue:
    """Angioma or angiokeratoma: red to purple lacunae parted by pale septa."""
    pick, clarity = rng.uniform, _clarity(rng)
    warped = warp(skin, rng, 0.025, 0.15)
    depth = depth_inside(warped, rng, pick(0.28, 0.64), pick(1, 1.45), pick(0.03, 0.1))
    grid = cells(warped, rng, pick(0.14, 0.25))
    lacunae = ramp(grid.edge, 0.0, pick(0.25, 0.5))
    lacunae *= clarity * (1 - 0.7 * ramp(grid.centre, 0.35, 0.75))
    lacunae += 0.5 * (1 - clarity)
    depth += pick(0.0, 0.12) * (lacunae - 0.5)
    body = ramp(depth, -0.04, pick(0.04, 0.12))
    blood = body * pick(0.35, 1.0)
    blood += body * lacunae * (0.6 + grid.tint) * pick(0.3, 1.5)
    purple = clarity * pick(0.0, 0.8) if rng.random() < 0.6 else 0.0
    clots = purple * body * lacunae * ramp(grid.tint, 0.45, 0.8)
    septa = clarity * body * (1 - lacunae) * pick(0.0, 0.5)
    veil = body * ramp(noise(skin, rng, 0.4), 0.3, 1.0) * pick(0.0, 0.5) * (rng.random() < 0.4)
    glow = 0.5 * purple * body * lacunae
    coats = ((glow, _PURPLE), (clots, _CLOT), (septa, _PINK), (veil, _WHITE))
    return Tissue(np.zeros_like(blood), blood, coats)


PAINTERS: Mapping[str, Callable[[Skin, Generator], Tissue]] = MappingProxyType(
    {
        "akiec": _paint_actinic_keratosis,
        "bcc": _paint_basal_cell_carcinoma,
        "bkl": _paint_benign_keratosis,
        "df": _paint_dermatofibroma,
        "mel": _paint_melanoma,
        "nv": _paint_naevus,
        "vasc": _paint_vascular_lesion,
    }
)
