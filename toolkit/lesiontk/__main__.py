"""``python -m lesiontk``, the same as ``lesiontk``."""

from lesiontk.cli.main import main

main()
