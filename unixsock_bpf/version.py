"""The version, for the package, the command, captures and the Wireshark plugin."""

__version__ = "0.1.0"
