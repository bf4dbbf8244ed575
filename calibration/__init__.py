"""Calibration lists, shipped as package data."""
