"""How an application is called: a task per connection (``task``), or hooks of an object
(``event``).
"""

from __future__ import annotations

from wssup.server.styles.base import Style
from wssup.server.styles.event import EventStyle
from wssup.server.styles.task import TaskStyle

__all__ = ["EventStyle", "Style", "TaskStyle"]
