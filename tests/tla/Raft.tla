-------------------------------- MODULE Raft --------------------------------
(* Raft (paper, sections 5, 6 and 8), told from what nodes are and have said, *)
(* without a bag of messages: a message may arrive late, twice or never, so   *)
(* all that matters of it is that it was sent once. What was sent is          *)
(* remembered for ever: who stood with which log, who told whom of a vote,    *)
(* what every leader had in its log, what was acknowledged.                   *)
(*                                                                            *)
(* A log is the sequence of the terms of its entries: index and term name an  *)
(* entry, and the configuration that it holds, if it holds one. Learners are  *)
(* whoever is in none. Pre-vote, check-quorum and transfer change when nodes  *)
(* do things, never what they may do, and are not seen here; nor is time, so  *)
(* of a read by lease only its result is. Disks are: a node that restarts has *)
(* what it had told others, and of the rest any part.                         *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Nodes,
    Voters,  \* of the first configuration, which is in no log
    None

VARIABLES
    node,    \* [Nodes -> [term, vote, role, log, commit]]
    stood,   \* {[term, candidate, log]}
    voted,   \* {[term, voter, candidate]}: decided, perhaps told to nobody yet
    told,    \* {[term, voter, candidate]}: what has left the voter
    won,     \* {[term, leader]}
    led,     \* [terms that had a leader -> [log, commit]]: the most there ever was
    acked,   \* {[term, follower, upto]}
    safe,    \* [Nodes -> log]: on disk when the node last acknowledged
    since,   \* [Nodes -> {log}]: what the node had in its log since then
    made,    \* {[index, term, voters, outgoing]}: the configurations in logs
    asked,   \* {[term, number, round, commit, floor]}: reads
    heard,   \* {[term, follower, round]}: a round of requests that it answered
    served   \* {[index, floor]}: what reads were answered with, and what was committed before

disk == <<safe, since>>
reads == <<asked, heard, served>>
vars == <<node, stood, voted, told, won, led, acked, disk, made, reads>>

Prefix(log, length) == SubSeq(log, 1, length)
IsPrefix(short, long) == Len(short) <= Len(long) /\ Prefix(long, Len(short)) = short
Longest(lengths) == CHOOSE k \in lengths : \A j \in lengths : j <= k
LastTerm(log) == IF log = <<>> THEN 0 ELSE log[Len(log)]
Smaller(a, b) == IF a < b THEN a ELSE b

Agree(log, other) == \* the length of what they have in common
    Longest({k \in 0 .. Smaller(Len(log), Len(other)) : Prefix(log, k) = Prefix(other, k)})

UpToDate(log, than) == \* section 5.4.1
    \/ LastTerm(log) > LastTerm(than)
    \/ LastTerm(log) = LastTerm(than) /\ Len(log) >= Len(than)

(* The newest configuration in a log holds, committed or not (section 6). On  *)
(* the way to other voters it is joint, with the outgoing ones.               *)
Configuration(log) ==
    LET first == [index |-> 0, term |-> 0, voters |-> Voters, outgoing |-> {}]
        here == {c \in made : c.index <= Len(log) /\ log[c.index] = c.term}
    IN  CHOOSE c \in here \cup {first} : \A d \in here : d.index <= c.index

IsMajority(some, all) == 2 * Cardinality(some \cap all) > Cardinality(all)

IsQuorum(some, configuration) ==
    /\ IsMajority(some, configuration.voters)
    /\ configuration.outgoing = {} \/ IsMajority(some, configuration.outgoing)

Committed == Longest({0} \cup {led[t].commit : t \in DOMAIN led})

Init ==
    /\ node = [n \in Nodes |-> [term |-> 0, vote |-> None, role |-> "follower",
                                log |-> <<>>, commit |-> 0]]
    /\ stood = {} /\ voted = {} /\ told = {} /\ won = {} /\ acked = {}
    /\ led = [t \in {} |-> <<>>]
    /\ safe = [n \in Nodes |-> <<>>]
    /\ since = [n \in Nodes |-> {<<>>}]
    /\ made = {} /\ asked = {} /\ heard = {} /\ served = {}

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
    /\ UNCHANGED <<stood, told, won, led, acked, safe, made, reads>>

(* Who is no voter may stand too: it does not count itself.                   *)
Timeout(n, new) ==
    /\ new.role = "candidate"
    /\ node[n].role /= "leader"
    /\ new.term = node[n].term + 1
    /\ new.vote = n
    /\ new.log = node[n].log /\ new.commit = node[n].commit
    /\ stood' = stood \cup {[term |-> new.term, candidate |-> n, log |-> new.log]}
    /\ Vote(n, new) /\ Keep(n, new)
    /\ UNCHANGED <<told, won, led, acked, safe, made, reads>>

IsOwn(new, before) == \* a leader's log only grows, by entries of its term
    /\ IsPrefix(before.log, new.log)
    /\ \A k \in Len(before.log) + 1 .. Len(new.log) : new.log[k] = new.term

(* Section 5.4.2: counted is what a majority acknowledged in this very term,  *)
(* and only entries of this term are. A leader acknowledges to itself what is *)
(* on its disk, and counts where it is a voter.                               *)
IsCounted(n, new) ==
    /\ new.commit <= Len(node[n].log)
    /\ new.log[new.commit] = new.term
    /\ IsQuorum({a.follower : a \in {b \in acked : b.term = new.term /\ b.upto >= new.commit}},
                Configuration(node[n].log))

Remember(new) ==
    led' = [t \in DOMAIN led \cup {new.term} |->
               IF t = new.term THEN [log |-> new.log, commit |-> new.commit] ELSE led[t]]

BecomeLeader(n, new) ==
    /\ new.role = "leader" /\ node[n].role = "candidate"
    /\ new.term = node[n].term /\ new.vote = n
    /\ LET votes == {t \in told : t.term = new.term /\ t.candidate = n}
       IN  IsQuorum({n} \cup {t.voter : t \in votes}, Configuration(node[n].log))
    /\ IsOwn(new, node[n]) /\ new.commit = node[n].commit
    /\ won' = won \cup {[term |-> new.term, leader |-> n]}
    \* An only voter may have won the term before, told nobody, and forgotten it.
    /\ made' = {c \in made : c.term /= new.term}
    /\ Remember(new) /\ Keep(n, new)
    /\ UNCHANGED <<stood, voted, told, acked, safe, reads>>

Lead(n, new) ==
    /\ new.role = "leader" /\ node[n].role = "leader"
    /\ new.term = node[n].term /\ new.vote = node[n].vote
    /\ IsOwn(new, node[n])
    /\ Remember(new) /\ Keep(n, new)
    /\ UNCHANGED <<stood, voted, told, won, acked, safe, reads>>

ClientRequestOrAdvance(n, new) ==
    /\ Lead(n, new)
    /\ \/ new.commit = node[n].commit
       \/ new.commit > node[n].commit /\ IsCounted(n, new)
    /\ UNCHANGED made

Become(n, new) ==
    /\ \/ Follow(n, new)
       \/ Timeout(n, new)
       \/ BecomeLeader(n, new)
       \/ ClientRequestOrAdvance(n, new)
    /\ node' = [node EXCEPT ![n] = new]

(* Section 6: an entry that changes the configuration. From one that is final *)
(* and committed, once an entry of the term is, to a joint one, or to other   *)
(* learners; from a joint one that is committed to the final one.             *)
Configure(n, new, voters, outgoing) ==
    LET now == Configuration(node[n].log)
        index == Len(node[n].log) + 1
    IN  /\ Lead(n, new)
        /\ Len(new.log) = index /\ new.commit = node[n].commit
        /\ now.index <= new.commit
        /\ new.commit > 0 /\ new.log[new.commit] = new.term
        /\ voters /= {}
        /\ \/ voters = now.voters /\ outgoing = {}
           \/ now.outgoing = {} /\ outgoing = now.voters
        /\ made' = made \cup {[index |-> index, term |-> new.term,
                               voters |-> voters, outgoing |-> outgoing]}
        /\ node' = [node EXCEPT ![n] = new]

-----------------------------------------------------------------------------
(* What leaves a node, which was on its disk before.                          *)

TellVote(n, term, candidate) ==
    /\ [term |-> term, voter |-> n, candidate |-> candidate] \in voted
    /\ told' = told \cup {[term |-> term, voter |-> n, candidate |-> candidate]}
    /\ UNCHANGED <<node, stood, voted, won, led, acked, disk, made, reads>>

(* ``log`` is what is on disk by then. If it is what was there at the last    *)
(* time, a flush of something newer may be under way.                         *)
Acknowledge(n, term, upto, log) ==
    /\ log \in since[n]
    /\ term \in DOMAIN led
    /\ upto <= Agree(log, led[term].log)
    /\ acked' = acked \cup {[term |-> term, follower |-> n, upto |-> upto]}
    /\ safe' = [safe EXCEPT ![n] = log]
    /\ since' = IF log = safe[n] THEN since
                ELSE [since EXCEPT ![n] = {log, node[n].log}]
    /\ UNCHANGED <<node, stood, voted, told, won, led, made, reads>>

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
    /\ UNCHANGED <<stood, voted, told, won, led, acked, safe, made, reads>>

-----------------------------------------------------------------------------
(* Reads (section 8). Requests carry the number of a round, answers give it   *)
(* back. A read waits for a round that nobody has answered when it is asked:  *)
(* so who answers has no newer leader by then.                                *)

Ask(n, number, round) ==
    /\ node[n].role = "leader"
    /\ \A h \in heard : h.term = node[n].term => h.round < round
    /\ asked' = asked \cup {[term |-> node[n].term, number |-> number, round |-> round,
                             commit |-> node[n].commit, floor |-> Committed]}
    /\ UNCHANGED <<node, stood, voted, told, won, led, acked, disk, made, heard, served>>

AnswerRound(n, term, round) ==
    /\ node[n].term = term
    /\ term \in DOMAIN led
    /\ heard' = heard \cup {[term |-> term, follower |-> n, round |-> round]}
    /\ UNCHANGED <<node, stood, voted, told, won, led, acked, disk, made, asked, served>>

(* A leader knows what is committed once an entry of its term is. It may have *)
(* stepped down since a majority answered.                                    *)
IsKnown(n, term, index) ==
    /\ [term |-> term, leader |-> n] \in won
    /\ index \in 1 .. led[term].commit
    /\ led[term].log[index] = term

Serve(n, term, number, index) ==
    /\ IsKnown(n, term, index)
    /\ \E r \in asked :
        LET answers == {h \in heard : h.term = term /\ h.round >= r.round}
        IN  /\ r.term = term /\ r.number = number
            /\ index >= r.commit
            /\ IsQuorum({n} \cup {h.follower : h \in answers}, Configuration(led[term].log))
            /\ served' = served \cup {[index |-> index, floor |-> r.floor]}
    /\ UNCHANGED <<node, stood, voted, told, won, led, acked, disk, made, asked, heard>>

(* A lease rests on clocks. What it has to come to does not.                  *)
ServeByLease(n, index) ==
    /\ node[n].role = "leader"
    /\ IsKnown(n, node[n].term, index)
    /\ index >= Committed
    /\ UNCHANGED vars

-----------------------------------------------------------------------------
(* Figure 3 of the paper, and what reads promise.                             *)

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

ReadsAreCurrent == \A s \in served : s.index >= s.floor
=============================================================================
