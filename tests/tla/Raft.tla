-------------------------------- MODULE Raft --------------------------------
(* Raft with fixed members (paper, sections 5.1 to 5.4), told from what nodes *)
(* are and have said, without a bag of messages: a message may arrive late,   *)
(* twice or never, so all that matters of it is that it was sent once. What   *)
(* was sent is remembered for ever: who stood with which log, who told whom   *)
(* of a vote, what every leader had in its log, what was acknowledged.        *)
(*                                                                            *)
(* A log is the sequence of the terms of its entries: index and term name an  *)
(* entry. Pre-vote, check-quorum and transfer change when nodes do things,    *)
(* never what they may do, and are not seen here. Disks are: a node that      *)
(* restarts has what it had told others, and of the rest any part.            *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS Nodes, None

VARIABLES
    node,    \* [Nodes -> [term, vote, role, log, commit]]
    stood,   \* {[term, candidate, log]}
    voted,   \* {[term, voter, candidate]}: decided, perhaps told to nobody yet
    told,    \* {[term, voter, candidate]}: what has left the voter
    won,     \* {[term, leader]}
    led,     \* [terms that had a leader -> [log, commit]]: the most there ever was
    acked,   \* {[term, follower, upto]}
    safe,    \* [Nodes -> log]: on disk when the node last acknowledged
    since    \* [Nodes -> {log}]: what the node had in its log since then

vars == <<node, stood, voted, told, won, led, acked, safe, since>>

Roles == {"follower", "candidate", "leader"}
Majorities == {set \in SUBSET Nodes : 2 * Cardinality(set) > Cardinality(Nodes)}

Prefix(log, length) == SubSeq(log, 1, length)
IsPrefix(short, long) == Len(short) <= Len(long) /\ Prefix(long, Len(short)) = short
LastTerm(log) == IF log = <<>> THEN 0 ELSE log[Len(log)]
Smaller(a, b) == IF a < b THEN a ELSE b

Agree(log, other) == \* the length of what they have in common
    LET lengths == {k \in 0 .. Smaller(Len(log), Len(other)) :
                        Prefix(log, k) = Prefix(other, k)}
    IN  CHOOSE k \in lengths : \A j \in lengths : j <= k

UpToDate(log, than) == \* section 5.4.1
    \/ LastTerm(log) > LastTerm(than)
    \/ LastTerm(log) = LastTerm(than) /\ Len(log) >= Len(than)

Init ==
    /\ node = [n \in Nodes |-> [term |-> 0, vote |-> None, role |-> "follower",
                                log |-> <<>>, commit |-> 0]]
    /\ stood = {} /\ voted = {} /\ told = {} /\ won = {} /\ acked = {}
    /\ led = [t \in {} |-> <<>>]
    /\ safe = [n \in Nodes |-> <<>>]
    /\ since = [n \in Nodes |-> {<<>>}]

-----------------------------------------------------------------------------
(* What a node may become, by the role that it then has. Each takes in the    *)
(* newer term of a message, if it is one, as the first thing it does.         *)

(* Its vote in the term it is in: as before, none yet, or for one who stood   *)
(* in that term with a log that is up to date.                                *)
VoteIsAllowed(n, new) ==
    \/ new.term = node[n].term /\ new.vote = node[n].vote
    \/ new.term > node[n].term /\ new.vote = None
    \/ /\ new.term > node[n].term \/ node[n].vote = None
       /\ \E s \in stood : /\ s.term = new.term
                           /\ s.candidate = new.vote
                           /\ UpToDate(s.log, node[n].log)

(* The log after AppendEntries of the leader of ``term``: any piece of that   *)
(* leader's log that continues a common beginning. Only a conflict shortens.  *)
LogIsAllowed(n, new) ==
    \/ new.log = node[n].log
    \/ /\ new.term \in DOMAIN led
       /\ IsPrefix(new.log, led[new.term].log)
       /\ \/ IsPrefix(node[n].log, new.log)
          \/ Agree(node[n].log, led[new.term].log) < Smaller(Len(node[n].log), Len(new.log))

CommitIsAllowed(n, new) ==
    \/ new.commit = node[n].commit
    \/ /\ new.commit > node[n].commit
       /\ new.term \in DOMAIN led
       /\ new.commit <= led[new.term].commit
       /\ new.commit <= Agree(new.log, led[new.term].log)

Keep(n, new) == since' = [since EXCEPT ![n] = @ \cup {new.log}]

Vote(n, new) ==
    voted' = IF new.vote = None THEN voted
             ELSE voted \cup {[term |-> new.term, voter |-> n, candidate |-> new.vote]}

Follow(n, new) ==
    /\ new.role = "follower"
    /\ new.term >= node[n].term
    /\ VoteIsAllowed(n, new)
    /\ LogIsAllowed(n, new)
    /\ CommitIsAllowed(n, new)
    \* What is committed is never cut off.
    /\ Agree(new.log, node[n].log) >= node[n].commit
    /\ Vote(n, new) /\ Keep(n, new)
    /\ UNCHANGED <<stood, told, won, led, acked, safe>>

Timeout(n, new) ==
    /\ new.role = "candidate"
    /\ node[n].role /= "leader"
    /\ new.term = node[n].term + 1
    /\ new.vote = n
    /\ new.log = node[n].log /\ new.commit = node[n].commit
    /\ stood' = stood \cup {[term |-> new.term, candidate |-> n, log |-> new.log]}
    /\ Vote(n, new) /\ Keep(n, new)
    /\ UNCHANGED <<told, won, led, acked, safe>>

IsOwn(new, before) == \* a leader's log only grows, by entries of its term
    /\ IsPrefix(before.log, new.log)
    /\ \A k \in Len(before.log) + 1 .. Len(new.log) : new.log[k] = new.term

(* Section 5.4.2: counted is what a majority acknowledged in this very term,  *)
(* and only entries of this term are.                                         *)
IsCounted(n, new, commit) ==
    /\ commit <= Len(new.log)
    /\ new.log[commit] = new.term
    /\ \E majority \in Majorities : \A m \in majority \ {n} :
           \E a \in acked : a.term = new.term /\ a.follower = m /\ a.upto >= commit

Remember(new) ==
    led' = [t \in DOMAIN led \cup {new.term} |->
               IF t = new.term THEN [log |-> new.log, commit |-> new.commit] ELSE led[t]]

BecomeLeader(n, new) ==
    /\ new.role = "leader" /\ node[n].role = "candidate"
    /\ new.term = node[n].term /\ new.vote = n
    /\ \E majority \in Majorities : \A m \in majority \ {n} :
           [term |-> new.term, voter |-> m, candidate |-> n] \in told
    /\ IsOwn(new, node[n]) /\ new.commit = node[n].commit
    /\ won' = won \cup {[term |-> new.term, leader |-> n]}
    /\ Remember(new) /\ Keep(n, new)
    /\ UNCHANGED <<stood, voted, told, acked, safe>>

ClientRequestOrAdvance(n, new) ==
    /\ new.role = "leader" /\ node[n].role = "leader"
    /\ new.term = node[n].term /\ new.vote = node[n].vote
    /\ IsOwn(new, node[n])
    /\ \/ new.commit = node[n].commit
       \/ new.commit > node[n].commit /\ IsCounted(n, new, new.commit)
    /\ Remember(new) /\ Keep(n, new)
    /\ UNCHANGED <<stood, voted, told, won, acked, safe>>

Become(n, new) ==
    /\ \/ Follow(n, new)
       \/ Timeout(n, new)
       \/ BecomeLeader(n, new)
       \/ ClientRequestOrAdvance(n, new)
    /\ node' = [node EXCEPT ![n] = new]

-----------------------------------------------------------------------------
(* What leaves a node, which was on its disk before.                          *)

TellVote(n, term, candidate) ==
    /\ [term |-> term, voter |-> n, candidate |-> candidate] \in voted
    /\ told' = told \cup {[term |-> term, voter |-> n, candidate |-> candidate]}
    /\ UNCHANGED <<node, stood, voted, won, led, acked, safe, since>>

(* ``disk`` is the log as it is on disk by then. If it is what was there at   *)
(* the last time, a flush of something newer may be under way.                *)
Acknowledge(n, term, upto, disk) ==
    /\ disk \in since[n]
    /\ term \in DOMAIN led
    /\ upto <= Agree(disk, led[term].log)
    /\ acked' = acked \cup {[term |-> term, follower |-> n, upto |-> upto]}
    /\ safe' = [safe EXCEPT ![n] = disk]
    /\ since' = IF disk = safe[n] THEN since
                ELSE [since EXCEPT ![n] = {disk, node[n].log}]
    /\ UNCHANGED <<node, stood, voted, told, won, led>>

(* A flush that was under way may have done some of its work: a beginning of  *)
(* a later log, behind what that has in common with what was safe.            *)
Restart(n, new) ==
    /\ new.role = "follower"
    /\ \E log \in since[n] : /\ IsPrefix(new.log, log)
                             /\ Len(new.log) >= Agree(log, safe[n])
    /\ new.commit <= node[n].commit
    /\ new.term <= node[n].term
    \* No promise is forgotten.
    /\ \A t \in told : t.voter = n =>
           new.term > t.term \/ (new.term = t.term /\ new.vote = t.candidate)
    /\ \A a \in acked : a.follower = n => new.term >= a.term
    /\ new.vote = None \/ [term |-> new.term, voter |-> n, candidate |-> new.vote] \in voted
    /\ node' = [node EXCEPT ![n] = new]
    /\ since' = [since EXCEPT ![n] = {safe[n], new.log}]
    /\ UNCHANGED <<stood, voted, told, won, led, acked, safe>>

-----------------------------------------------------------------------------
(* Figure 3 of the paper.                                                     *)

ElectionSafety == \A a, b \in won : a.term = b.term => a.leader = b.leader

LogMatching ==
    \A a, b \in Nodes :
        LET one == node[a].log
            two == node[b].log
        IN  \A k \in 1 .. Smaller(Len(one), Len(two)) :
                one[k] = two[k] => Prefix(one, k) = Prefix(two, k)

StateMachineSafety ==
    \A a, b \in Nodes :
        LET both == Smaller(node[a].commit, node[b].commit)
        IN  Prefix(node[a].log, both) = Prefix(node[b].log, both)

LeaderCompleteness ==
    \A n \in Nodes : \A t \in DOMAIN led :
        node[n].role = "leader" /\ node[n].term > t =>
            IsPrefix(Prefix(led[t].log, led[t].commit), node[n].log)
=============================================================================
