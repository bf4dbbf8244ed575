"""The operations of the commands and the Python API: plan, run, convert, evaluate, bundle."""
