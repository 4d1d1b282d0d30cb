"""Errors that parts of the package raise for others to report."""


class UnixsockError(Exception):
    """Something could not be done; the message is one sentence with its remedy."""


class ProbeError(UnixsockError):
    """The probe cannot run here."""
