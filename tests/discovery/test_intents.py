"""What is remembered of who joined and who is about to leave."""

from quorumlog.discovery.core.intents import Intents
from quorumlog.discovery.core.members import MemberTable, Peer
from quorumlog.discovery.wire.messages import Alive
from quorumlog.discovery.wire.serf_messages import Intent


class CountingTable(MemberTable):
    """Counts who is looked for."""

    looks = 0

    def get(self, name: str) -> Peer | None:
        self.looks += 1
        return super().get(name)


def table_of(members: int) -> CountingTable:
    table = CountingTable(members)
    for number in range(members):
        table.apply_alive(Alive(f"m{number}", 1, ("10.0.0.1", 1 + number), b""), 0.0)
    return table


def test_of_too_many_names_those_of_strangers_are_forgotten_oldest_first() -> None:
    intents = Intents(table_of(2), 4)
    for name in ("x0", "m0", "x1", "m1", "x2", "x3"):
        intents.take(Intent(name, 7, leaves=True))
    known = [name for name in ("x0", "m0", "x1", "m1", "x2", "x3") if intents.is_leaving(name)]
    assert known == ["m0", "m1", "x2", "x3"]


def test_where_all_names_are_of_members_a_stranger_is_not_remembered() -> None:
    intents = Intents(table_of(3), 3)
    for name in ("m0", "m1", "m2", "x"):
        intents.take(Intent(name, 7, leaves=True))
    assert not intents.is_leaving("x")
    assert all(intents.is_leaving(f"m{number}") for number in range(3))


def test_a_flood_of_names_costs_as_little_among_many_members() -> None:
    members, names = 400, 10_000
    table = table_of(members)
    intents = Intents(table, 2 * members)
    for name in [*(f"m{number}" for number in range(members)), *(f"x{n}" for n in range(names))]:
        intents.take(Intent(name, 7, leaves=False))
    assert table.looks < 4 * names
