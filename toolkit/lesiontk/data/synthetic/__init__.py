"""Synthetic dermoscopic images, for demonstrations and tests without data."""
