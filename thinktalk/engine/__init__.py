"""Many conversations at once: they listen while you speak and speak while they think.

engine    seats, units of work, a thread            seat        one conversation's place: read, reply, cancel, rewind
scheduler which unit is next, by deadline           admission   who is let in
replying  one reply as it is made                   stages      the networks at work for many
pool      decode rows side by side                  drawing     their samplers side by side
"""

from thinktalk.engine.admission import Busy
from thinktalk.engine.engine import Engine
from thinktalk.engine.replying import Failed, Said
from thinktalk.engine.seat import Seat
from thinktalk.engine.seat_state import Mark, SeatState
from thinktalk.engine.thinking import ContextFull

__all__ = ["Busy", "ContextFull", "Engine", "Failed", "Mark", "Said", "Seat", "SeatState"]
