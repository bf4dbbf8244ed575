"""Renamed keys: the old names are accepted for one release, with a warning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from lesiontk.technique import TECHNIQUES

SECTIONS: Final = {"data": {"fit": "crop_mode"}}
OPTIONS: Final = {"distil": "distill"}
"""Renamed keys of any technique."""

logger = logging.getLogger(__name__)


def rename_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's document with the current keys; logs a warning for each old one."""
    changed = dict(document)
    for section, names in SECTIONS.items():
        if isinstance(changed.get(section), Mapping):
            changed[section] = _rename(changed[section], names, section)
    entries = changed.get("compress")
    if isinstance(entries, list | tuple):
        changed["compress"] = [
            {
                name: _rename(options, OPTIONS, f"compress.{name}")
                if isinstance(options, Mapping)
                else options
                for name, options in _rename(entry, TECHNIQUES.renamed, "compress").items()
            }
            if isinstance(entry, Mapping)
            else entry
            for entry in entries
        ]
    return changed


def _rename(section: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    for old in names.keys() & section.keys():
        logger.warning(
            "%s.%s is now called %s; the next release will not accept the old name.",
            where,
            old,
            names[old],
        )
    return {names.get(key, key): value for key, value in section.items()}
