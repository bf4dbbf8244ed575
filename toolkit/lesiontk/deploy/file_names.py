"""Names of the files in a bundle."""

from __future__ import annotations

GOLDEN, BUNDLE, README, CARD = "golden.npz", "bundle.json", "README.md", "MODEL_CARD.md"
PICTURES = "golden"
"""The folder of images to prepare."""
CHECKSUMS, REQUIREMENTS = "SHA256SUMS", "requirements.txt"
