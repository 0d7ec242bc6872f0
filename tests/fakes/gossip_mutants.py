"""Bugs of gossip protocols, put back one at a time; docs/testing.md shows the table."""

from typing import Final

from fakes.gossip_mutant import GossipMutant
from fakes.gossip_mutants_of_news import NEWS_MUTANTS
from quorumlog.discovery.core.claims import Claims
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.prober import Prober
from quorumlog.discovery.core.suspicion import LocalHealth, Suspicion

GOSSIP_MUTANTS: Final = (
    # -- probing
    GossipMutant(
        "no indirect probes",
        Prober._try_again,
        "self._config.indirect_checks,",
        "0,",
        "test_cluster_in_virtual_time.test_a_member_cut_off_from_one_other_is_kept_by_indirect_probes",
    ),
    GossipMutant(
        "no probes over TCP",
        Prober._try_again,
        "if self._config.stream_probes",
        "if False",
        "test_cluster_in_virtual_time.test_stream_probes_keep_a_member_whose_packets_are_all_lost",
    ),
    GossipMutant(
        "a ping is sent once",
        Prober._try_again,
        "self._send_ping(probe)",
        "pass",
        "test_parts_of_the_core.test_a_ping_without_an_answer_is_sent_again_when_others_are_asked",
    ),
    GossipMutant(
        "a relay pings once",
        Prober.relay,
        "now + _AGAIN_SHARE * timeout_s",
        "None",
        "test_parts_of_the_core.test_a_relay_pings_twice_and_says_in_time_that_nobody_answers",
    ),
    GossipMutant(
        "relays without a bound",
        Prober.relay,
        "if len(self._relays) >= MAX_RELAYS:",
        "if False:",
        "test_parts_of_the_core.test_relays_are_bounded",
    ),
    GossipMutant(
        "a relay sleeps over its times",
        vars(Prober)["deadline"].fget,
        "if not self._relays:",
        "if True:",
        "test_who_is_told.test_what_is_relayed_wakes_a_member_that_has_nothing_else_to_do",
    ),
    GossipMutant(
        "relays are never forgotten",
        Prober._go_on_relaying,
        "if now >= relay.expires_at:",
        "if False:",
        "test_who_is_told.test_what_is_relayed_wakes_a_member_that_has_nothing_else_to_do",
    ),
    GossipMutant(
        "the next probe follows at once",
        Prober._finish,
        "self._next_at = next_at",
        "pass",
        "test_who_is_told.test_one_member_is_probed_an_interval_however_soon_it_answers",
    ),
    GossipMutant(
        "any ack answers a probe",
        Prober.receive_ack,
        "sequence == probe.sequence",
        "True",
        "test_local_health.test_the_answer_to_another_ping_answers_no_probe",
    ),
    GossipMutant(
        "every round in the same order",
        Prober._next_target,
        "shuffle(self._round, self._rng)",
        "pass",
        "test_bounds_in_virtual_time.test_every_member_is_probed_once_a_round_and_each_round_in_another_order",
    ),
    GossipMutant(
        "the last of a round is not probed",
        Prober._next_target,
        "while self._round:",
        "while len(self._round) > 1:",
        "test_bounds_in_virtual_time.test_every_member_is_probed_once_a_round_and_each_round_in_another_order",
    ),
    GossipMutant(
        "suspects are not probed",
        Prober._next_target,
        "and peer.running and",
        "and peer.status is Status.ALIVE and",
        "test_parts_of_the_core.test_a_suspect_is_told_with_its_ping",
    ),
    GossipMutant(
        "a probe does not tell the suspect (buddy system)",
        Prober._send_ping,
        "if peer.status is Status.SUSPECT:",
        "if False:",
        "test_bounds_in_virtual_time.test_a_probe_tells_a_suspect_of_the_suspicion_also_when_the_news_is_spent",
    ),
    GossipMutant(
        "every probe accuses",
        Prober._send_ping,
        "if peer.status is Status.SUSPECT:",
        "if True:",
        "test_who_is_told.test_a_ping_accuses_nobody_who_is_not_suspected",
    ),
    # -- local health
    GossipMutant(
        "no nack is asked for",
        Prober._try_again,
        "wants_nack =",
        "wants_nack = False and",
        "test_local_health.test_each_relay_that_owes_a_nack_at_the_end_of_a_probe_costs_health",
    ),
    GossipMutant(
        "nacks are not counted",
        Prober.receive_nack,
        "probe.nacks_missing -= 1",
        "pass",
        "test_local_health.test_each_relay_that_owes_a_nack_at_the_end_of_a_probe_costs_health",
    ),
    GossipMutant(
        "a nack comes too late to count",
        Prober.relay,
        "_NACK_SHARE * timeout_s",
        "timeout_s",
        "test_parts_of_the_core.test_a_relay_pings_twice_and_says_in_time_that_nobody_answers",
    ),
    GossipMutant(
        "missing nacks cost no health",
        Prober._fail,
        "else probe.nacks_missing",
        "else 0",
        "test_local_health.test_each_relay_that_owes_a_nack_at_the_end_of_a_probe_costs_health",
    ),
    GossipMutant(
        "an answer gives no health back",
        Prober.receive_ack,
        "self._health.apply(-1)",
        "pass",
        "test_local_health.test_an_answer_to_a_probe_gives_one_step_of_health_back",
    ),
    GossipMutant(
        "the timeout of a probe is not scaled",
        Prober._start,
        "self._health.scale(self._config.probe_timeout_s)",
        "self._config.probe_timeout_s",
        "test_local_health.test_both_times_of_a_probe_are_as_many_times_as_long_as_the_score_says",
    ),
    GossipMutant(
        "the end of a probe is not scaled",
        Prober._start,
        "self._health.scale(self._config.probe_interval_s)",
        "self._config.probe_interval_s",
        "test_local_health.test_both_times_of_a_probe_are_as_many_times_as_long_as_the_score_says",
    ),
    GossipMutant(
        "an accusation costs no health",
        Claims._answer_accusation,
        "self._health.apply(1)",
        "pass",
        "test_parts_of_the_core.test_an_accusation_is_refuted_with_a_higher_incarnation",
    ),
    GossipMutant(
        "a pause of its own costs no health",
        GossipCore._advance,
        "self._health.apply(1)",
        "pass",
        "test_local_health.test_a_member_that_did_not_run_doubts_itself",
    ),
    GossipMutant(
        "after a pause all is overdue",
        GossipCore._advance,
        "if at > due + self._config.probe_interval_s:",
        "if False:",
        "test_parts_of_the_core.test_after_a_pause_an_answer_that_waited_still_counts",
    ),
    GossipMutant(
        "health without a bound",
        LocalHealth.apply,
        "min(self._max, max(0, self._score + delta))",
        "max(0, self._score + delta)",
        "test_parts_of_the_core.test_health_stays_within_its_bounds",
    ),
    # -- suspicion
    GossipMutant(
        "a suspicion without a shortest time",
        Suspicion._timeout_s,
        "max(self._min_s, self._max_s - share * (self._max_s - self._min_s))",
        "self._max_s * (1 - share)",
        "test_bounds_in_virtual_time.test_a_killed_member_is_detected_and_known_within_the_bounds",
    ),
    GossipMutant(
        "as short among many as among few",
        Suspicion.__init__,
        "math.log10(max(1, members))",
        "1.0",
        "test_bounds_in_virtual_time.test_a_killed_member_is_detected_and_known_within_the_bounds",
    ),
    GossipMutant(
        "one accuser counts every time",
        Suspicion.confirm,
        "or accuser in self._accusers",
        "",
        "test_parts_of_the_core.test_a_suspicion_shrinks_from_its_longest_to_its_shortest",
    ),
    GossipMutant(
        "own health never stands in for others (`put_off`)",
        Suspicion.put_off,
        "if not self._too_few:",
        "if True:",
        "test_parts_of_the_core.test_where_others_are_too_few_to_confirm_a_suspicion_waits_for_who_doubts_itself",
    ),
    GossipMutant(
        "a stale accusation confirms",
        Claims.suspect,
        "or claim.incarnation < peer.incarnation",
        "",
        "test_local_health.test_only_accusations_of_the_present_incarnation_confirm_a_suspicion",
    ),
    GossipMutant(
        "confirmations are not passed on",
        Claims.suspect,
        "if suspicion.confirm(_accuser(claim), now):",
        "if suspicion.confirm(_accuser(claim), now) and False:",
        "test_bounds_in_virtual_time.test_a_suspicion_that_all_confirm_is_as_short_as_it_may_be_and_no_shorter",
    ),
    GossipMutant(
        "hearsay is a witness",
        Claims.record,
        "Suspect(claim.name, claim.incarnation, claim.name)",
        "Suspect(claim.name, claim.incarnation, self._name)",
        "test_slow_members_in_virtual_time.test_what_a_slow_member_suspects_is_confirmed_by_nobody_who_only_heard_of_it",
    ),
    GossipMutant(
        "a refuted suspicion ends all the same",
        Claims.alive,
        "self._suspicions.pop(claim.name, None)",
        "pass",
        "test_cluster_in_virtual_time.test_a_suspected_member_refutes",
    ),
    *NEWS_MUTANTS,
)
