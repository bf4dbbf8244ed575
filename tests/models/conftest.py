"""Fixtures of models from elsewhere, for all modules here."""

from tests.models.foreign_models import keras, keras3

__all__ = ["keras", "keras3"]
