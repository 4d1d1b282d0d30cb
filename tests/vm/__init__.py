"""Throw-away guests with stock Debian kernels, in which the probe is tested and shown.

``kernels`` fetches kernels, ``rootfs`` other Debian releases' user lands, ``guest`` boots
one on the other with virtme-ng, and ``plugin`` lets pytest run tests in guests.  All of
it lives in ``.cache`` of the checkout, and is fetched once.
"""
