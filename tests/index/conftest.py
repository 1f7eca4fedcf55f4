from __future__ import annotations

from collections.abc import Iterator

import pytest
from closeby.index import _native
from hypothesis import HealthCheck, settings

# The same cases on every run and machine: a failure of a build is a failure of everybody's.
settings.register_profile(
    "closeby",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("closeby")


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once with the kernels of each instruction set."""
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set("best")
