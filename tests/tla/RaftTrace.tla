------------------------------ MODULE RaftTrace ------------------------------
(* Are recorded traces behaviours of Raft? Every step has to be one that Raft *)
(* allows, and is printed then; a trace ends where none is.                   *)
(* ``TraceData`` is written by the recorder: ``Traces``, who there is, and    *)
(* who votes at first.                                                        *)
EXTENDS Raft, TraceData, TLC

VARIABLES which, at

Step(event) ==
    \/ event.kind = "become" /\ Become(event.node, event.new)
    \/ event.kind = "vote" /\ TellVote(event.node, event.term, event.candidate)
    \/ /\ event.kind = "acknowledge"
       /\ Acknowledge(event.node, event.term, event.upto, event.disk)
    \/ event.kind = "restart" /\ Restart(event.node, event.new)
    \/ /\ event.kind = "configure"
       /\ Configure(event.node, event.new, event.voters, event.outgoing)
    \/ event.kind = "ask" /\ Ask(event.node, event.number, event.round)
    \/ event.kind = "round" /\ AnswerRound(event.node, event.term, event.round)
    \/ event.kind = "serve" /\ Serve(event.node, event.term, event.number, event.index)
    \/ event.kind = "lease" /\ ServeByLease(event.node, event.index)

TraceInit == Init /\ which \in DOMAIN Traces /\ at = 1

TraceNext ==
    /\ at <= Len(Traces[which])
    /\ Step(Traces[which][at])
    /\ at' = at + 1 /\ UNCHANGED which
    /\ PrintT(<<which, at>>)
=============================================================================
