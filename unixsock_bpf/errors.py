"""What goes wrong with the probe."""


class ProbeError(Exception):
    """The probe can't run here; the message is one sentence with its remedy."""
