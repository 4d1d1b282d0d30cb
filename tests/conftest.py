"""With --kernels, the tests under tests/kernel run in guests; without, they run where pytest runs."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["vm.plugin"]

# A machine that does other things, too, is slow at times, and no test should fail for that.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
