"""Recipes, shipped as package data."""
