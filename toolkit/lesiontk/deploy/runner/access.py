"""Who may ask the server: a token beyond the machine itself, and no page of another origin."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LESIONTK_TOKEN"
SHORTEST = 16
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AccessError(ValueError):
    """A token is missing or too short, or an address cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class Access:
    """The address to listen on, and the token that requests there require; empty for none."""

    host: str
    port: int
    token: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def allows(self, authorization: str | None) -> bool:
        """Return whether a header ``Authorization`` has the token, compared in constant time.

        It is a bearer token, or the password of basic authentication, which a browser asks for.
        """
        if not self.token:
            return True
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(value.strip().encode(), self.token.encode())

    def is_own(self, host: str | None, origin: str | None) -> bool:
        """Return whether a request is for this server and not from another site's page.

        On loopback the header ``Host`` must name it: otherwise a site whose name resolves to this
        machine could read answers.
        """
        if self.loopback and _without_port(host or "") not in LOOPBACK:
            return False
        return origin is None or origin.partition("://")[2] == host


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_access(listen: str, token_file: Path | None) -> Access:
    """Return the access for ``HOST:PORT``; the token is in a file or in the environment.

    Raises `AccessError` without a token where others can connect.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise AccessError(f"received {listen!r}; expected HOST:PORT, for example 127.0.0.1:8080")
    token = os.environ.get(VARIABLE, "")
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AccessError(f"the token cannot be read: {error}") from error
    token = token.strip()
    if token and len(token) < SHORTEST:
        raise AccessError(
            f"the token has {len(token)} characters; expected at least {SHORTEST}: "
            "`python3 -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
        )
    if not token and not is_loopback(host):
        raise AccessError(
            f"{host} can be reached by other machines, and there is no token; expected "
            f"--token-file FILE or {VARIABLE}, or --listen 127.0.0.1:{port}"
        )
    return Access(host, int(port), token)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
