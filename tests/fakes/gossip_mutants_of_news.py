"""Known bugs in what members believe and tell each other, and in what they take from strangers."""

from typing import Final

from fakes.gossip_mutant import GossipMutant
from quorumlog.discovery.core import members
from quorumlog.discovery.core.broadcasts import BroadcastQueue
from quorumlog.discovery.core.claims import Claims
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.members import MemberTable
from quorumlog.discovery.core.outbox import Outbox
from quorumlog.discovery.core.prober import Prober
from quorumlog.discovery.core.serf_layer import SerfLayer
from quorumlog.discovery.core.versions import Versions
from quorumlog.discovery.rejections import Rejections
from quorumlog.discovery.wire import packet
from quorumlog.discovery.wire.envelope import Envelope

NEWS_MUTANTS: Final = (
    # -- what is believed
    GossipMutant(
        "no refutation",
        Claims._answer_accusation,
        "if incarnation >= me.incarnation:",
        "if False:",
        "test_parts_of_the_core.test_an_accusation_is_refuted_with_a_higher_incarnation",
    ),
    GossipMutant(
        "a stale accusation is left to itself",
        Claims._answer_accusation,
        "elif not self._outbox.spreads(self._name):",
        "elif False:",
        "test_parts_of_the_core.test_a_stale_accusation_makes_the_refutation_go_out_again",
    ),
    GossipMutant(
        "incarnations compared with <",
        MemberTable.apply_status,
        "<=",
        "<",
        "test_merge_rules.test_claims_heard_again_change_nothing",
    ),
    GossipMutant(
        "alive counts at the same incarnation",
        MemberTable.apply_alive,
        "claim.incarnation > peer.incarnation",
        "claim.incarnation >= peer.incarnation",
        "test_merge_rules.test_the_result_is_the_greatest_claim",
    ),
    GossipMutant(
        "states compared without incarnations",
        MemberTable.apply_status,
        "(incarnation, status) <= (peer.incarnation, peer.status)",
        "status <= peer.status",
        "test_merge_rules.test_the_result_is_the_greatest_claim",
    ),
    GossipMutant(
        "a failed member is alive in a state",
        MemberTable.records,
        "peer.status)",
        "Status.ALIVE)",
        "test_who_is_told.test_a_state_says_of_everybody_what_is_believed_of_it",
    ),
    GossipMutant(
        "who failed by a peer's state is gone here",
        Claims.record,
        "case Status.LEFT:",
        "case Status.LEFT | Status.DEAD:",
        "test_who_is_told.test_a_member_that_a_peer_holds_for_failed_may_refute_here",
    ),
    GossipMutant(
        "a name is free while its owner runs",
        members._refusal,
        "if peer.running:",
        "if False:",
        "test_merge_rules.test_another_node_at_another_address_is_a_conflict_while_the_first_runs",
    ),
    GossipMutant(
        "a name used twice is told to nobody",
        Claims.alive,
        "self._conflict(claim.name, claim.address)",
        "pass",
        "test_cluster_in_virtual_time."
        "test_a_second_live_node_of_the_same_name_changes_nothing_and_is_told",
    ),
    GossipMutant(
        "members without a bound",
        MemberTable._add,
        "if len(self._order) >= self._max_members:",
        "if False:",
        "test_merge_rules.test_a_full_table_takes_no_new_member_and_still_hears_of_the_known",
    ),
    GossipMutant(
        "the failed are never forgotten",
        GossipCore._call_others,
        "self._table.forget(at - self._config.forget_after_s)",
        "pass",
        "test_cluster_in_virtual_time.test_failed_members_are_forgotten_in_the_end",
    ),
    GossipMutant(
        "the intent to leave does not count",
        Claims.dead,
        "or self._intents.is_leaving(claim.name)",
        "",
        "test_faults_in_virtual_time.test_the_intent_to_leave_makes_a_crash_on_the_way_out_a_leave",
    ),
    # -- news
    GossipMutant(
        "news is sent for ever (no retransmit limit)",
        BroadcastQueue.take,
        "transmits + 1 >= transmit_limit",
        "False",
        "test_parts_of_the_core.test_news_is_sent_so_often_and_then_dropped",
    ),
    GossipMutant(
        "news is sent once",
        BroadcastQueue.take,
        "transmits + 1 >= transmit_limit",
        "True",
        "test_parts_of_the_core.test_news_is_sent_so_often_and_then_dropped",
    ),
    GossipMutant(
        "news rides on no ping",
        Outbox.send,
        "MAX_PARTS - len(parts)",
        "0",
        "test_parts_of_the_core.test_a_stale_accusation_makes_the_refutation_go_out_again",
    ),
    GossipMutant(
        "no news for who failed just now",
        GossipCore._gossip,
        "(peer.running or recent)",
        "peer.running",
        "test_who_is_told.test_news_goes_to_who_failed_just_now_and_to_nobody_else_that_is_gone",
    ),
    GossipMutant(
        "news for who failed long ago",
        GossipCore._gossip,
        "and peer.changed_at > horizon",
        "",
        "test_who_is_told.test_news_goes_to_who_failed_just_now_and_to_nobody_else_that_is_gone",
    ),
    GossipMutant(
        "states are never exchanged",
        GossipCore._call_others,
        "self._exchange_with_one(Status.ALIVE)",
        "pass",
        "test_faults_in_virtual_time.test_what_was_lost_as_often_as_it_was_sent_is_heard_of_in_an_exchange_of_states",
    ),
    GossipMutant(
        "the failed are never called",
        GossipCore._call_others,
        "self._exchange_with_one(Status.DEAD)",
        "pass",
        "test_bounds_in_virtual_time.test_halves_find_each_other_within_the_time_between_two_calls",
    ),
    GossipMutant(
        "states exchanged as often among many",
        GossipCore._push_pull_interval_s,
        "if members <= _PUSH_PULL_SCALE:",
        "if True:",
        "test_who_is_told.test_states_are_exchanged_more_rarely_among_many",
    ),
    GossipMutant(
        "Serf answers take any number of ways",
        SerfLayer._respond,
        "min(query.relay_factor, _MAX_RELAYS)",
        "query.relay_factor",
        "test_who_is_told.test_an_answer_takes_so_many_other_ways_and_no_more",
    ),
    # -- versions
    GossipMutant(
        "versions not compared",
        Versions.fits,
        "all(_go_together(versions, o) for o in (versions, *others))",
        "True",
        "test_protocol_versions.TestWhoIsTaken.test_a_claim_that_does_not_fit_is_refused_alone",
    ),
    GossipMutant(
        "a checksum for every version",
        Outbox._emit_packet,
        "self._table.checks_at(address)",
        "True",
        "test_protocol_versions.TestWhatEachIsSent.test_a_checksum_is_for_those_who_know_it",
    ),
    GossipMutant(
        "nacks asked of every version",
        Prober._try_again,
        "understood_version(relay.said) >= NACK_VERSION",
        "True",
        "test_protocol_versions.TestWhatEachIsSent.test_a_nack_is_wanted_of_those_who_send_it",
    ),
    GossipMutant(
        "TCP tried with every version",
        Prober._try_again,
        "understood_version(target.said) >= STREAM_PING_VERSION",
        "True",
        "test_protocol_versions.TestWhatEachIsSent.test_tcp_is_tried_with_those_who_answer_there",
    ),
    # -- strangers
    GossipMutant(
        "checksum not compared",
        packet.decode_packet,
        "zlib.crc32(body) != expected",
        "False",
        "test_wire.test_a_bad_packet_is_a_typed_error",
    ),
    GossipMutant(
        "layers without a bound",
        packet._decode,
        "if kind in _WRAPPED:",
        "if False:",
        "test_rejections.test_what_is_wrapped_in_one_layer_too_many_is_refused",
    ),
    GossipMutant(
        "any number of answers to one packet",
        packet.decode_packet,
        "> MAX_ASKED",
        "> 1000",
        "test_rejections.test_one_packet_asks_for_one_answer",
    ),
    GossipMutant(
        "news for strangers",
        Outbox.send,
        "if self._table.anybody_at(address):",
        "if True:",
        "test_rejections.test_an_answer_to_nobody_known_carries_no_news",
    ),
    GossipMutant(
        "label not compared",
        Envelope.open_packet,
        "or data[:size] != self.prefix",
        "",
        "test_envelope.test_what_is_foreign_is_refused_on_packets_and_streams",
    ),
    GossipMutant(
        "plain packets taken in spite of keys",
        Envelope.open_packet,
        "if self.must_be_sealed:",
        "if False:",
        "test_envelope.test_what_is_foreign_is_refused_on_packets_and_streams",
    ),
    GossipMutant(
        "nonces not remembered",
        Envelope.take_nonce,
        "if nonce in self._nonces:",
        "if False:",
        "test_envelope.test_a_packet_is_taken_once",
    ),
    GossipMutant(
        "rejections logged without a bound",
        Rejections.count,
        "if self._limit.allows(now):",
        "if True:",
        "test_rejections.test_a_thousand_rejections_a_second_are_all_counted_and_few_are_logged",
    ),
)
