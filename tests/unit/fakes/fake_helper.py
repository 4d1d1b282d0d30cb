"""The privileged helper, with a ring that the test fills in place of a probe: its path, and its size."""

from __future__ import annotations

import sys

import fake_ring

from unixsock_bpf.privilege import helper

fake_ring.use(sys.argv[1], int(sys.argv[2]))
helper.main(65534)
