"""Whether a query is meant for this member: Serf's filters by name and by tag."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from quorumlog.discovery.wire.serf_codec import decode_filter
from quorumlog.errors import ProtocolError

_BY_NAME: Final = 0
_BY_TAG: Final = 1
_LITERAL = re.compile(rb"(?:\\[^\w\s]|[^\\^$.|?*+()\[\]{}])*")


def passes(filters: Iterable[bytes], name: str, tags: Mapping[str, str]) -> bool:
    """Every one has to let ``name`` with ``tags`` pass; one that cannot be read lets nobody."""
    try:
        return all(_passes(*decode_filter(each), name.encode(), tags) for each in filters)
    except ProtocolError:
        return False


def _passes(kind: int, content: object, name: bytes, tags: Mapping[str, str]) -> bool:
    if kind == _BY_NAME:
        return isinstance(content, list) and name in content
    if kind != _BY_TAG or not isinstance(content, dict):
        return False
    tag, expression = content.get(b"Tag"), content.get(b"Expr")
    if not isinstance(tag, bytes) or not isinstance(expression, bytes):
        return False
    return _matches(expression, tags.get(tag.decode(errors="replace"), "").encode())


def _matches(expression: bytes, value: bytes) -> bool:
    """A text, with ``^`` and ``$`` or without. A stranger's regular expression is not run: one
    can be made that takes Python's engine for ever, and this member is silent then."""
    begins, ends = expression.startswith(b"^"), expression.endswith(b"$")
    literal = expression[begins : len(expression) - ends]
    if not _LITERAL.fullmatch(literal):
        return False
    text = re.sub(rb"\\(.)", rb"\1", literal)
    if begins and ends:
        return value == text
    if begins:
        return value.startswith(text)
    return value.endswith(text) if ends else text in value
