"""The trained model as the reference engine of all others."""
