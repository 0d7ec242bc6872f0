------------------------------ MODULE RaftTrace ------------------------------
(* Is a recorded trace a behaviour of Raft? Every step of it has to be one    *)
(* that Raft allows; where none is, TLC finds a deadlock at that step.        *)
(* ``TraceData`` is written by the recorder and holds ``Trace`` alone.        *)
EXTENDS Raft, TraceData

VARIABLE at

Step(event) ==
    \/ event.kind = "become" /\ Become(event.node, event.new)
    \/ event.kind = "vote" /\ TellVote(event.node, event.term, event.candidate)
    \/ /\ event.kind = "acknowledge"
       /\ Acknowledge(event.node, event.term, event.upto, event.disk)
    \/ event.kind = "restart" /\ Restart(event.node, event.new)

TraceInit == Init /\ at = 1

TraceNext ==
    \/ at <= Len(Trace) /\ Step(Trace[at]) /\ at' = at + 1
    \/ at > Len(Trace) /\ UNCHANGED <<vars, at>>
=============================================================================
