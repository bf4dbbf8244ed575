"""The URL of a shared store: its form, its package, and what an error may show of it."""

from __future__ import annotations

import importlib.util
import re
from urllib.parse import urlsplit

from lesiontk.errors import MissingRequirementError, UsageError, show_value, suggest

S3 = ("s3", "s3a")
OBJECT_STORES = (*S3, "gs", "gcs", "az", "abfs", "abfss", "oci", "oss")
"""Schemes whose objects appear whole. In other file systems a file is renamed when it is whole."""
FORM = "expected a URL such as s3://BUCKET/PREFIX or file:///FOLDER"


def check_url(url: str) -> str:
    """Return the URL without a slash at its end, after checks without a connection."""
    shown = show_value(_mask(url))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"the shared store {shown} is not a URL ({error}); {FORM}.") from error
    user = url.partition("//")[2].rpartition("@")[0]  # keys of S3 contain slashes
    if parts.scheme != "file" and (":" in user or parts.query or parts.fragment):
        raise UsageError(
            f"the shared store {shown} has more than a place; {FORM}. Credentials belong to the "
            "environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if "://" not in url or "::" in url:
        raise UsageError(f"the shared store is {shown}; {FORM}.")
    if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
        raise UsageError(f"the shared store is {shown}; expected file:/// and an absolute path.")
    if parts.scheme in OBJECT_STORES and not parts.netloc:
        raise UsageError(f"the shared store {shown} has no bucket; {FORM}.")
    _check_package(parts.scheme)
    return url.rstrip("/")


def _check_package(scheme: str) -> None:
    if importlib.util.find_spec("fsspec") is None:
        raise MissingRequirementError(
            "a shared store requires fsspec, which is not installed: pip install 'lesiontk[s3]'."
        )
    from fsspec.registry import available_protocols, known_implementations

    if scheme not in available_protocols():
        raise UsageError(
            f"the shared store has the unknown scheme {show_value(scheme)}; {FORM}."
            f"{suggest(scheme, available_protocols())}"
        )
    package = str(known_implementations.get(scheme, {}).get("class", "fsspec")).partition(".")[0]
    if importlib.util.find_spec(package) is None:
        wanted = "'lesiontk[s3]'" if scheme in S3 else package
        raise MissingRequirementError(
            f"a shared store at {scheme}:// requires {package}, which is not installed: "
            f"pip install {wanted}."
        )


def _mask(text: str) -> str:
    """Return the text without the user names, passwords and queries of its URLs."""
    return re.sub(r"\S*@", "***@", re.sub(r"\?\S*", "?***", text))


def explain_failure(error: Exception, scheme: str) -> str:
    """Return why a file system failed, without credentials, and what to check."""
    reason = _mask(" ".join(str(error).split())) or type(error).__name__
    denied = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
    if denied:
        reason = f"permission denied ({reason})"
    if scheme in S3 and denied:
        remedy = (
            "the credentials in the environment, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
        )
    elif scheme in S3:
        remedy = "the network, and the address of a server of your own in AWS_ENDPOINT_URL"
    else:
        remedy = "that this machine may write there, and that space is left"
    return f"{reason}. Check {remedy}."
