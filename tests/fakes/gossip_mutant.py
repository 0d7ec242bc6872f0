"""A bug that can be put into gossip, and the test that has to find it."""

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import pytest

from fakes.gossip_runs import formed

_TESTS: Final = Path(__file__).parent.parent / "discovery"


@dataclass(frozen=True, slots=True)
class GossipMutant:
    """``right`` stands once in ``function``; ``found_by`` is ``module.test`` in tests/discovery.

    A method is given as the class has it.
    """

    name: str
    function: Any
    right: str
    wrong: str
    found_by: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Whoever holds the function, by whatever name, calls the wrong one meanwhile."""
        function = self.function
        source = textwrap.dedent(inspect.getsource(function))
        if not isinstance(function, FunctionType) or source.count(self.right) != 1:
            raise ValueError(f"{self.name}: {function} does not have {self.right!r} once")
        names: dict[str, Any] = {}
        exec(source.replace(self.right, self.wrong), function.__globals__, names)
        right_code = function.__code__
        function.__code__ = names[function.__name__].__code__
        # What others made of sound members is not to be run on, nor is this left to them.
        formed.cache_clear()
        try:
            yield
        finally:
            function.__code__ = right_code
            formed.cache_clear()

    def hunt(self, fixtures: Mapping[str, Any]) -> BaseException | None:
        """Put the bug back and run the test with each of its parameters; what it fails with.

        Any other error than a failed test's is the mutant's own fault, and raised.
        """
        module, name = self.found_by.split(".")
        test = getattr(_loaded(module), name)
        known = {key: fixtures[key] for key in inspect.signature(test).parameters.keys() & fixtures}
        with self.applied():
            for arguments in _parameters(test):
                try:
                    test(**known, **arguments)
                except (AssertionError, pytest.fail.Exception) as failure:
                    return failure
        return None


def _parameters(test: Any) -> Iterator[dict[str, Any]]:
    """Every combination that pytest runs ``test`` with."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    names = [
        mark.args[0].split(", ") if isinstance(mark.args[0], str) else [*mark.args[0]]
        for mark in marks
    ]
    for chosen in product(*(mark.args[1] for mark in marks)):
        arguments: dict[str, Any] = {}
        for keys, values in zip(names, chosen, strict=True):
            arguments |= zip(keys, values if len(keys) > 1 else [values], strict=True)
        yield arguments


@lru_cache
def _loaded(module: str) -> ModuleType:
    spec = spec_from_file_location(module, _TESTS / f"{module}.py")
    if spec is None or spec.loader is None:
        raise ValueError(f"{module}.py is not in tests/discovery")
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
