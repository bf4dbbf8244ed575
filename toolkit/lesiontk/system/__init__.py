"""The machine: cores, memory, disk, frameworks and accelerators."""
