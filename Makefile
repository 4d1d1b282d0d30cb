# `make test` and `make demo` need git, make and root on Debian 12; tests/setup installs the rest.

VENV := .venv/bin
# Guest tests find their infrastructure under tests/.
export PYTHONPATH := tests
VM := $(VENV)/python -m vm
SUITE ?= bookworm
PEER ?=

.PHONY: help demo test test-gui test-wireshark test-kernels test-faults bench bench-short guest setup clean lint unit

help:
	@echo 'make demo          live packets from real programs, in a minute or a few'
	@echo 'make test          style, types, unit tests here, capture tests on two kernels in guests'
	@echo 'make test-wireshark the dissector on Wireshark 4.0, 4.4 and 4.6, in chroots'
	@echo 'make test-kernels  the capture tests on four kernels, with fentry and with kprobes; docs/kernels.md'
	@echo 'make bench         what a capture costs, beside tcpdump, bpftrace and strace; docs/performance.md'
	@echo '                   PEER="command {path}" adds another; make bench-short only tries the bench'
	@echo 'make test-faults   in a guest: kills, clock jumps, hostile peers, ordinary users, filters changed under load;'
	@echo '                   and the long forms of hostile input'
	@echo 'make test-gui      Wireshark itself, by mouse and keyboard; pictures of it in .cache/gui'
	@echo 'make guest RUN=... run a shell command in a guest (SUITE=bullseye|bookworm|trixie|sid)'
	@echo 'make clean         remove caches, guests and .venv'

setup:
	@tests/setup

demo: setup
	@$(VENV)/python demo/demo.py

lint: setup
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	luacheck --quiet dissector

# Half an hour is the most that this may take under emulation: what takes long has targets of its own.
FAULTS := $(addprefix tests/kernel/,test_faults.py test_hostile.py test_ordinary_users.py test_filter_change.py)
test: lint
	$(VENV)/pytest --verbose --kernels bookworm,sid --one-thread --brief $(FAULTS:%=--ignore %) \
	    tests/unit tests/dissector tests/gui tests/kernel

test-gui: setup
	$(VENV)/pytest --verbose --kernels bookworm --one-thread tests/gui tests/kernel/test_gui.py

test-wireshark: setup
	UNIXSOCK_WIRESHARK=all $(VENV)/pytest --verbose tests/dissector

# Each row of docs/kernels.md is one of these tests.
FEATURES := $(patsubst %,tests/kernel/test_%.py,basic send_syscalls process_identity bound_paths descriptors events stream_integrity loss filter_load)
test-kernels: setup
	$(VENV)/pytest --verbose --kernels bullseye,bookworm,trixie,sid --attach fentry,kprobe --own-root --one-thread \
	    --kernel-table docs/kernels.md $(FEATURES)

bench bench-short:
	@tests/setup tests/benchmarks/debian-packages
	@$(VENV)/python -m benchmarks --suite $(SUITE) --peer '$(PEER)' $(if $(filter bench-short,$@),--short)

test-faults: setup
	UNIXSOCK_LONG=1 $(VENV)/pytest --verbose -rP --kernels bookworm --one-thread tests/unit/test_hostile_input.py \
	    tests/dissector/test_mutated.py $(FAULTS) tests/kernel/test_stress.py

guest: setup
	@$(VM) --suite $(SUITE) $(if $(RUN),-- '$(RUN)')

clean:
	rm -rf .cache .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info demo.pcapng
