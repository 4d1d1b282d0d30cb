"""With --kernels, the tests under tests/guest run in guests; without, they run where pytest runs."""

pytest_plugins = ["vm.plugin"]
