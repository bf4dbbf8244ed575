"""Synthetic dermoscopic images, for trials and tests without data."""
