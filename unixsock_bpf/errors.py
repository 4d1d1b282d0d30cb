"""Errors that parts of the package raise for others to report."""


class UnixsockError(Exception):
    """Something could not be done; the message is one sentence with its remedy."""


class ProbeError(UnixsockError):
    """The probe cannot run here."""


def harmless(text: str) -> str:
    """Return ``text`` for a terminal or a window: a sentence may quote arguments, which hold anything."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )
