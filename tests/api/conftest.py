import pytest

from fakes.broker import FakeBroker
from fakes.context import FakeContext


@pytest.fixture
def broker() -> FakeBroker:
    """Node ``a`` of three, with topic ``t`` of two partitions."""
    broker = FakeBroker()
    broker.create("t", partitions=2, replicas=3)
    return broker


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()
