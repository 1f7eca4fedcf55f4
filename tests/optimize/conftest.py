from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "closeby",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("closeby")
