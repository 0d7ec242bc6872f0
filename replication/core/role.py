"""What a member is at the moment (Raft figure 4, with the pre-vote of dissertation §9.6).

::

                 timeout                 majority            majority
    FOLLOWER ----------> PRE_CANDIDATE ----------> CANDIDATE ----------> LEADER
       |                                              ^
       +----------------------------------------------+  TimeoutNow, or told to campaign

A candidate of either kind whose election comes to nothing asks again as PRE_CANDIDATE. From
everywhere a newer term, or the leader of this one, leads back to FOLLOWER; a leader also steps
down when it hears no majority. A learner is a FOLLOWER that never leaves.
"""

from enum import Enum
from typing import Final


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


TRANSITIONS: Final[dict[Role, tuple[Role, ...]]] = {
    Role.FOLLOWER: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.PRE_CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER),
    Role.LEADER: (Role.FOLLOWER,),
}
