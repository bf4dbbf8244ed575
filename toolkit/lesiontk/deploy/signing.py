"""Signatures of bundles: Ed25519 (RFC 8032) over ``SHA256SUMS``, which lists every other file.

Keys are PEM files as OpenSSL writes them (``openssl genpkey -algorithm ed25519``), and
``SHA256SUMS.sig`` is the raw signature, which ``openssl pkeyutl -verify -rawin`` checks, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lesiontk.deploy.runner import signature
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from lesiontk.files.regular_file import check_regular
from lesiontk.files.whole_files import write_whole

SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = signature.SIGNATURE
LARGEST_KEY: Final = 10_000


def sign_sums(folder: Path, key: Path) -> None:
    """Write the signature of a bundle's checksums with a private key (PEM, not encrypted).

    Raises `UsageError` for a file that is no Ed25519 private key, `MissingRequirementError` without
    the package cryptography.
    """
    signed = load_private_key(key).sign((folder / SUMS).read_bytes())
    write_whole({folder / SIGNATURE: signed})


def verify_sums(folder: Path, key: Path) -> None:
    """Check the signature of a bundle's checksums with a public key (PEM), as the runner does.

    The files themselves are then checked against the checksums. Raises `DataError` for a bundle
    without a signature, or with that of another key or of other checksums; others as `sign_sums`.
    """
    check_regular(key, "key")
    try:
        signature.require_signature(folder, key)
    except signature.TrustedKeyError as error:
        raise UsageError(f"{error}. `openssl pkey -in KEY -pubout` writes one.") from error
    except signature.SignatureError as error:
        raise DataError(f"{folder}: {error}.") from error
    except signature.MissingRequirementError as error:
        raise MissingRequirementError(f"{error}.") from error


def load_private_key(path: Path) -> Any:
    """Return the key in a PEM file. Raises as `sign_sums`."""
    serialization, ed25519, unsupported = _import_cryptography()
    data = _read_key(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, unsupported) as error:
        raise UsageError(_describe_key(path, error)) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(_describe_key(path, type(key).__name__))
    return key


def _read_key(path: Path) -> bytes:
    check_regular(path, "key")
    if path.stat().st_size > LARGEST_KEY:
        raise UsageError(f"{path} has {path.stat().st_size} bytes; expected a key in PEM form.")
    return path.read_bytes()


def _describe_key(path: Path, found: object) -> str:
    return (
        f"{path} is no Ed25519 private key that can be read ({found}); expected a PEM file without "
        "a password. `openssl genpkey -algorithm ed25519` writes one."
    )


def _import_cryptography() -> tuple[Any, Any, Any]:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingRequirementError(
            f"signatures need the package cryptography ({error}): pip install 'lesiontk[signing]'."
        ) from error
    return serialization, ed25519, UnsupportedAlgorithm
