"""The Python interface: the operations of the command line as objects, for scripts and notebooks.

`lesiontk` exports the public names; each module here is loaded when one of its names is used.
"""
