"""The Python interface: what the command line does, as objects that a notebook shows.

`lesiontk` exports the public names; each module here is loaded when one of its names is used.
"""
