"""Capturing as an ordinary user: a small part runs as root, and little of that for long.

``client`` is the ordinary user's side: it starts the privileged part through sudo or pkexec.
``request`` is what it may ask for, ``reports`` what it hears.  ``helper`` is the privileged
part, started by ``libexec/unixsock-capture``; ``sandbox`` is what it locks itself into once the
probe is attached; ``policy`` are the files that let a group use it.  docs/security-design.md tells why.
"""
