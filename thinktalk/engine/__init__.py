"""Many conversations at once: they listen while you speak and speak while they think.

session    one conversation, for its user              seat       its place in the engine: read, reply, cancel, rewind
engine     seats and units of work; worker: a thread   scheduler  which unit is next, by deadline; admission: who is let in
replying   one reply as it is made                     stages     the networks at work for many: thinking, speaking
pool       decode rows side by side                    drawing    their samplers side by side
"""

from thinktalk.engine.admission import Busy
from thinktalk.engine.engine import Engine
from thinktalk.engine.replying import Failed, Said
from thinktalk.engine.seat import Seat
from thinktalk.engine.seat_state import Mark, SeatState
from thinktalk.engine.thinking import ContextFull

__all__ = ["Busy", "ContextFull", "Engine", "Failed", "Mark", "Said", "Seat", "SeatState"]
