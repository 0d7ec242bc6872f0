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

_PARAM: Final = type(pytest.param())
_TESTS: Final = Path(__file__).parent.parent / "discovery"


@dataclass(frozen=True, slots=True)
class GossipMutant:
    """``right`` stands once in ``function``, a function, or a method as its class has it.

    ``found_by`` is ``module.test`` or ``module.Class.test`` in tests/discovery.
    """

    name: str
    function: Any
    right: str
    wrong: str
    found_by: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Meanwhile whoever holds the function, by whatever name, calls the wrong one.

        Raises ``ValueError`` where the function has changed and the mutant has not followed it.
        """
        function = self.function
        source = textwrap.dedent(inspect.getsource(function))
        if not isinstance(function, FunctionType) or source.count(self.right) != 1:
            raise ValueError(f"{self.name}: {function} does not have {self.right!r} once")
        names: dict[str, Any] = {}
        exec(source.replace(self.right, self.wrong), function.__globals__, names)
        wrong = names[function.__name__]
        right_code = function.__code__
        function.__code__ = (wrong.fget if isinstance(wrong, property) else wrong).__code__
        # Networks that were formed without the bug are not run on with it, nor the other way round.
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
        test = self._test()
        known = {key: fixtures[key] for key in inspect.signature(test).parameters.keys() & fixtures}
        with self.applied():
            for arguments in _parameters(test):
                try:
                    test(**known, **arguments)
                except (AssertionError, pytest.fail.Exception) as failure:
                    return failure
        return None

    def _test(self) -> Any:
        module, *owners, name = self.found_by.split(".")
        owner: Any = _loaded(module)
        for each in owners:
            owner = getattr(owner, each)()
        return getattr(owner, name)


def _parameters(test: Any) -> Iterator[dict[str, Any]]:
    """Every combination of arguments that pytest runs ``test`` with."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for cases in product(*map(_cases, marks)):
        yield {name: value for case in cases for name, value in case.items()}


def _cases(mark: Any) -> Iterator[dict[str, Any]]:
    names, cases = mark.args
    names = names.split(", ") if isinstance(names, str) else names
    for case in cases:
        values = case if len(names) > 1 else [case]
        yield dict(zip(names, case.values if isinstance(case, _PARAM) else values, strict=True))


@lru_cache
def _loaded(module: str) -> ModuleType:
    spec = spec_from_file_location(module, _TESTS / f"{module}.py")
    if spec is None or spec.loader is None:
        raise ValueError(f"{module}.py is not in tests/discovery")
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
