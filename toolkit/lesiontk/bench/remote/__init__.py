"""Measurement on another machine: a bundle is copied there, measured, and removed.

A transport is one file and one registration line, by the scheme of its URL.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from lesiontk.bench.remote.transport import Transport
from lesiontk.errors import UsageError, suggest
from lesiontk.registry import Registry

TRANSPORTS: Registry[type[Transport]] = Registry("transport")
TRANSPORTS.register("ssh", "lesiontk.bench.remote.ssh:SSH", "a machine with an SSH server")
TRANSPORTS.register("adb", "lesiontk.bench.remote.adb:ADB", "a device on Android's debug bridge")


def open_transport(url: str) -> Transport:
    """Return the transport of ``ssh://[USER@]HOST[:PORT]`` or ``adb://[SERIAL]``.

    Raises `UsageError` for another URL, `MissingRequirementError` without its client.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in TRANSPORTS:
        raise UsageError(
            f"the device is {url!r}; expected ssh://USER@HOST or adb://SERIAL."
            f"{suggest(scheme, list(TRANSPORTS))}"
        )
    try:
        parts = urlsplit(url)
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.password
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is not a URL ({error}); expected ssh://USER@HOST.") from error
    if extra:
        raise UsageError(
            f"{url!r} has more than a user, a host and a port; expected ssh://USER@HOST. Passwords "
            "and keys belong to the configuration of ssh."
        )
    user, _, place = parts.netloc.rpartition("@")
    host = place.removesuffix(f":{port}") if port else place  # hostname would be in lower case
    return TRANSPORTS.get(scheme)(user, host.strip("[]"), port)
