"""The version, for the package, the command, captures and the Wireshark plugin."""

__version__ = "0.2.0"
