"""The trained model itself, as the engine that others are compared with."""
