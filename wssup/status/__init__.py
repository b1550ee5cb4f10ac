"""What can be known of an instance from outside: the master's facts, and the status document that
they make together with the scoreboard.
"""

from __future__ import annotations
