"""Settings: precedence, bounds, and what a mistake is answered with."""

from pathlib import Path

import pytest

from quorumlog.errors import ConfigError
from quorumlog.node.config import NodeConfig, load_config
from quorumlog.node.gossip_settings import gossip_config


def test_defaults_are_a_single_durable_node() -> None:
    config = load_config({}, {})
    assert config.listen == "127.0.0.1:7400"
    assert config.gossip_address == ("127.0.0.1", 7946)
    assert config.expect == 1


def test_join_without_expect_never_forms_a_cluster() -> None:
    assert load_config({"join": ("10.0.0.1:7946",)}, {}).expect == 0


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('listen = "127.0.0.1:1"\nname = "file"\nheartbeat_ms = 20\n')
    environ = {"QUORUMLOG_LISTEN": "127.0.0.1:2", "QUORUMLOG_NAME": "environment"}
    config = load_config({"listen": "127.0.0.1:3", "name": None}, environ, str(file))
    assert (config.listen, config.name, config.heartbeat_ms) == ("127.0.0.1:3", "environment", 20)


def test_environment_lists_are_separated_by_commas() -> None:
    config = load_config({}, {"QUORUMLOG_JOIN": "a:1, b:2"})
    assert config.join == ("a:1", "b:2")


@pytest.mark.parametrize("rack", ["r" * 65, "ü" * 33, "a\nb", "a\0"])
def test_a_rack_is_short_and_printable(rack: str) -> None:
    assert load_config({"rack": "eu-1b / 7"}, {}).rack == "eu-1b / 7"
    with pytest.raises(ConfigError, match="rack is"):
        load_config({"rack": rack}, {})


def test_seeds_may_be_names_in_dns() -> None:
    seeds = ("dns+a://q.default.svc:7946", "dns+srv://_gossip._tcp.q")
    assert load_config({"join": seeds}, {}).join == seeds
    with pytest.raises(ConfigError, match=r"'dns\+a://q' is not"):
        load_config({"join": ("dns+a://q",)}, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('data_dri = "x"', "did you mean data_dir"),
        ("heartbeat_ms = 200", "heartbeat_ms is 200"),
        ('heartbeat_ms = "soon"', "whole number"),
        ("listen = 7400", "has to be text"),
        ("join = [1, 2]", "list of HOST:PORT"),
        ("[", "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config({}, {}, str(file))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config({}, {"QUORUMLOG_CONFIG": str(tmp_path / "none.toml")})


def test_an_unknown_variable_is_no_error() -> None:
    assert load_config({}, {"QUORUMLOG_PORT_7400_TCP": "tcp://10.0.0.1:7400"}) == NodeConfig()


def test_scrubbing_has_a_rate_or_is_off(tmp_path: Path) -> None:
    assert load_config({}, {}).scrub_bytes_s == 4 * 1024 * 1024
    assert load_config({}, {"QUORUMLOG_SCRUB_BYTES_S": "0"}).scrub_bytes_s == 0
    file = tmp_path / "node.toml"
    file.write_text("scrub_bytes_s = 4096")
    assert load_config({}, {}, str(file)).scrub_bytes_s == 4096
    for rate in (-1, 4095, 1024**3 + 1):
        with pytest.raises(ConfigError, match=f"scrub_bytes_s is {rate}: .* or is 0"):
            NodeConfig(scrub_bytes_s=rate)


@pytest.mark.parametrize("address", ["7400", "host", "host:", ":1", "host:99999", "host:1x"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        NodeConfig(listen=address)


def test_a_wildcard_needs_an_address_that_others_can_dial() -> None:
    with pytest.raises(ConfigError, match="advertise"):
        NodeConfig(listen="0.0.0.0:7400")
    assert NodeConfig(listen="0.0.0.0:7400", advertise="db1:7400").advertise == "db1:7400"


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("retention_interval_ms", 100, 3_600_000),
        ("retention_max_lag_ms", 0, 604_800_000),
        ("leader_return_ms", 0, 3_600_000),
    ],
)
def test_settings_in_milliseconds_have_bounds(name: str, lowest: int, highest: int) -> None:
    for value in (lowest, highest):
        assert getattr(load_config({}, {f"QUORUMLOG_{name.upper()}": str(value)}), name) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            NodeConfig(**{name: value})


def test_a_node_is_told_how_many_form_the_cluster_or_whether_it_joins() -> None:
    assert (NodeConfig().expect, NodeConfig(join=("a:1",)).expect) == (1, 0)
    assert NodeConfig(join=("a:1",), bootstrap_expect=1).expect == 1
    assert load_config({}, {"QUORUMLOG_BOOTSTRAP_EXPECT": "0"}).expect == 0
    for number in (-1, 10):
        with pytest.raises(ConfigError, match=f"bootstrap_expect is {number}: it goes from 0 to 9"):
            NodeConfig(bootstrap_expect=number)
    with pytest.raises(ConfigError, match="whole number"):
        load_config({}, {"QUORUMLOG_BOOTSTRAP_EXPECT": "three"})


def test_gossip_has_a_label_keys_and_a_way_to_begin_to_encrypt() -> None:
    with pytest.raises(ConfigError, match="gossip_verify is 'all'"):
        NodeConfig(gossip_verify="all")
    with pytest.raises(ConfigError, match="255"):
        NodeConfig(gossip_label="é" * 128)
    steps = [gossip_config(NodeConfig(gossip_verify=step)) for step in ("none", "outgoing", "both")]
    assert [(step.verify_outgoing, step.verify_incoming) for step in steps] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert gossip_config(NodeConfig(gossip_label="blue")).label == "blue"
