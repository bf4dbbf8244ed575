"""Files and documents of unknown origin, opened and written safely."""
