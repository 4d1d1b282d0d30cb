"""Capturing as an unprivileged user: a small helper runs as root, and little of it for long.

``client`` starts the helper through sudo or pkexec; ``protocol`` has the requests that it sends, and the
reports that come back.  ``helper`` is what ``libexec/unixsock-capture`` starts; ``policy`` has the files that
let a group use it.  Once the probe is attached, the helper confines itself (linux/sandbox.py).
docs/security-design.md has the reasons.
"""
