"""Whether the bundle was signed with the key that this machine trusts.

``LESIONTK_PUBLIC_KEY`` names a file with an Ed25519 public key (PEM); without it no signature is
needed. Needs the package cryptography. The code that checks is itself part of the bundle: a machine
that must not trust it checks the folder first, with `lesiontk verify` or OpenSSL.
"""

from __future__ import annotations

from pathlib import Path

SIGNATURE = "SHA256SUMS.sig"


class SignatureError(Exception):
    """The bundle is not signed with the trusted key."""

    exit_code = 2


class TrustedKeyError(SignatureError):
    """The key that is to be trusted cannot be read."""


class MissingRequirementError(Exception):
    """The package cryptography is missing."""

    exit_code = 3


def require_signature(folder: Path, key: Path) -> None:
    """Raise `SignatureError` unless the public key's owner signed the bundle's checksums."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise MissingRequirementError(
            f"signatures need the package cryptography ({error}): pip install cryptography"
        ) from error
    try:
        public = load_pem_public_key(key.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise TrustedKeyError(f"{key} cannot be read as a public key: {error}") from error
    if not isinstance(public, Ed25519PublicKey):
        raise TrustedKeyError(f"{key} is no Ed25519 public key")
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise SignatureError(
            f"the bundle is not signed; expected {SIGNATURE}. `lesiontk bundle --sign KEY` signs it"
        )
    try:
        public.verify(signature.read_bytes(), (folder / "SHA256SUMS").read_bytes())
    except InvalidSignature as error:
        raise SignatureError(
            f"the bundle's signature is not by {key.name}, or SHA256SUMS was changed after it; do "
            "not use the bundle: fetch it again"
        ) from error
