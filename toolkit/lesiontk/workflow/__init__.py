"""What the commands and the Python API call: plan, run, convert, evaluate, bundle."""
