# Everything here runs on Debian 12 with git, make and (for what is not installed yet) root.

VENV := .venv/bin
# Guest tests find their infrastructure under tests/.
export PYTHONPATH := tests
VM := $(VENV)/python -m vm
PYTEST := $(VENV)/pytest --verbose
SUITE ?= bookworm
KERNELS ?= bookworm,sid
# Debian releases whose own Wireshark goes through the session in a guest, too: WINDOWS=sid is the newest.
WINDOWS ?=
TESTS ?=
PEER ?=

.PHONY: help setup demo lint format unit test test-dissector test-wireshark test-kernels test-arm64 test-kinds \
    test-faults test-gui test-exports test-packages deb dist viewer bench bench-short bench-counted bench-exports \
    bench-dissector guest clean generate

help:
	@echo 'target             what it does                                                 needs'
	@echo 'make demo          live packets from real programs                              root once, network once; 1 to 4 min'
	@echo 'make lint          style, types, import contracts, dead code                    1 min'
	@echo 'make format        put the code into the form that lint wants                   seconds'
	@echo 'make generate      write copies of declarations: C, Lua, docs, completions      seconds'
	@echo 'make unit          unit tests                                                   1 min'
	@echo 'make test          lint, unit, dissector and GUI tests; guests with 2 kernels   root, network once; 25 min emulated'
	@echo '                   TESTS="tests/unit -k glob": only these; KERNELS=sid: only in its guest'
	@echo 'make test-dissector the dissector on Wireshark 4.0, 4.4 and 4.6, in chroots     root, network once; 6 min'
	@echo 'make test-kernels  guests with 4 kernels, fentry and kprobe; docs/kernels.md    root, network once; 2 h emulated'
	@echo 'make test-arm64    the core of it on arm64: 6.1 and 6.12, ARM64=bookworm-arm64   root, network once; 1 h emulated'
	@echo 'make test-kinds    the core of it on other kernels: real-time, cloud, backports  root, network once; 2 h emulated'
	@echo '                   and boots: preemption, lockdown, many processors; KINDS=trixie-rt only that'
	@echo 'make test-faults   kills, clock jumps, hostile peers, long hostile input        root, network once; 1 h emulated'
	@echo 'make test-gui      Wireshark 4.0, 4.4, 4.6 by mouse; pictures in .cache/gui      root, network once; 1 h emulated'
	@echo 'make test-exports  Spark, PlantUML, Mermaid, Bustle, a broker read exports; 2 GiB  root, network once; 20 min'
	@echo 'make test-packages packages of Debian 12, 13 and sid by apt alone; pip, rpm, pacman  root, network; 40 min'
	@echo 'make deb           Debian packages in dist/                                     root once; 1 min'
	@echo 'make dist          wheel and sdist in dist/                                     network; 1 min'
	@echo 'make bench         what a capture costs, beside other tools; docs/performance.md root, network once; 2 h emulated'
	@echo '                   bench-counted only counts instructions, on two kernels: 30 min on a busy machine, too'
	@echo '                   bench-exports, bench-dissector: only their tables, 15 min each'
	@echo '                   PEER="command {path}" adds another; make bench-short only tries the bench'
	@echo 'make guest RUN=... a shell command in a guest; SUITE=bullseye|bookworm|trixie|sid|…'
	@echo 'make viewer        .cache/unixsock-viewer.zip: dissector and profile for macOS and Windows   seconds'
	@echo 'make clean         remove caches, guests and .venv'
	@echo 'Root installs the Debian packages that are missing (tests/debian-packages), and makes chroots and guests.'

setup:
	@tests/setup

demo: setup
	@$(VENV)/python demo/demo.py

lint: setup
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-logo --no-cache
	$(VENV)/vulture
	luacheck --quiet dissector

format: setup
	$(VENV)/ruff check --fix --select I .
	$(VENV)/ruff format .

# Copies of declarations: the record in C and Lua, tables in docs/, the man page, the completions.
generate:
	@python3 tests/generate.py

unit: setup
	$(VENV)/pytest --numprocesses auto --quiet tests/unit

# The whole must finish within 35 minutes under emulation; slow suites have targets of their own.  Of the session
# by mouse it has a short form, on the oldest and the newest Wireshark; test-gui has the whole.
FAULTS := $(addprefix tests/kernel/,test_faults.py test_hostile.py test_unprivileged_users.py test_filter_change.py \
    test_capture_feedback.py test_sshd.py test_journald.py test_other_hosts.py test_remote_faults.py \
    test_many_hosts.py)
ifeq ($(TESTS),)
test: export UNIXSOCK_WIRESHARK ?= all
test: export UNIXSOCK_WINDOWS ?= local,4.6
test: lint
	$(PYTEST) --kernels $(KERNELS) --windows '$(WINDOWS)' --one-thread --brief $(FAULTS:%=--ignore %) \
	    --ignore tests/kernel/test_gui.py --ignore tests/kernel/test_no_btf.py \
	    tests/unit tests/dissector tests/gui tests/kernel
else
test: setup
	$(PYTEST) --kernels $(KERNELS) --one-thread $(TESTS)
endif

test-gui: export UNIXSOCK_WINDOWS ?= all
test-gui: setup
	$(PYTEST) --kernels bookworm --windows trixie,sid --one-thread tests/gui tests/kernel/test_gui.py

test-dissector test-wireshark: setup
	UNIXSOCK_WIRESHARK=all $(PYTEST) tests/dissector

# Each row of docs/kernels.md is one of these tests.
FEATURES := $(patsubst %,tests/kernel/test_%.py,basic send_syscalls process_identity bound_paths descriptors events \
    stream_integrity loss filter_load verifier)
test-kernels: setup
	$(PYTEST) --kernels bullseye,bookworm,trixie,sid --attach fentry,kprobe --own-root --one-thread \
	    --kernel-table docs/kernels.md $(FEATURES)

# Names of tests/vm/kernels.py.
ARM64 ?= bookworm-arm64,trixie-arm64
test-arm64: setup
	@tests/setup tests/vm/debian-packages
	$(PYTEST) --kernels $(ARM64) --one-thread \
	    $(patsubst %,tests/kernel/test_%.py,basic stream_integrity descriptors events loss)

KINDS ?= bookworm-rt,trixie-rt,bookworm-cloud,trixie-cloud,bookworm-backports,trixie-backports,experimental,$\
    trixie-preempt-full,trixie-preempt-none,sid-preempt-full,sid-preempt-lazy,bookworm-unmitigated,$\
    bookworm-jiffies,sid-lockdown,sid-kptr,bookworm-many-cpus
test-kinds: setup
	$(PYTEST) --kernels $(KINDS) --one-thread tests/kernel/test_basic.py tests/kernel/test_stream_integrity.py
	$(PYTEST) --kernels bookworm --one-thread tests/kernel/test_no_btf.py

# Seconds of coverage-guided fuzzing, for all parsers together.
FUZZ_SECONDS ?= 600
test-faults: setup
	@tests/setup tests/kernel/debian-packages
	UNIXSOCK_LONG=1 $(PYTEST) -rP --kernels bookworm --one-thread tests/unit/test_hostile_input.py \
	    tests/dissector/test_mutated.py tests/dissector/test_linear_time.py $(FAULTS) tests/kernel/test_stress.py
	$(VENV)/pip install --disable-pip-version-check -q -e '.[fuzz]'
	$(VENV)/python -m fuzz --seconds $(FUZZ_SECONDS)

# What make test has no time for: engines and readers that are large to install, and large captures.
test-exports:
	@tests/setup tests/exports/debian-packages
	@tests/exports/setup
	$(PYTEST) tests/exports

test-packages:
	@tests/setup tests/packages/debian-packages
	$(PYTEST) tests/packages

deb:
	@packaging/deb

dist: setup
	@$(VENV)/pip install --disable-pip-version-check -q build twine
	$(VENV)/python -m build
	$(VENV)/twine check --strict dist/*.whl dist/*.tar.gz

bench bench-short bench-counted:
	@tests/setup tests/benchmarks/debian-packages
	@$(VENV)/python -m benchmarks --suite $(SUITE) --peer '$(PEER)' $(patsubst bench-%,--%,$(filter bench-%,$@))

# Exports and datasets, and the dissector, without a guest: their parts of docs/performance.md.
bench-exports: setup
	@$(VENV)/python -m exports.measure --memory --write 100000 1000000 10000000

bench-dissector: setup
	@$(VENV)/python tests/benchmarks/dissector.py --write

viewer:
	@packaging/viewer .cache/unixsock-viewer.zip

guest: setup
	@$(VM) --suite $(SUITE) $(if $(RUN),-- '$(RUN)')

clean:
	rm -rf .cache .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info demo.pcapng
