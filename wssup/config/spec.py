"""What the table of settings says about each of them."""

from __future__ import annotations

import msgspec

from wssup.config.kinds import Kind

__all__ = ["Spec"]


class Spec(msgspec.Struct, frozen=True):
    """What the table says about a setting besides its name, type and default.

    :ivar kind: how its values are read and shown.
    :ivar group: the heading it stands under in help and reference.
    :ivar help: one sentence on what it does.
    :ivar live: whether a reload applies a change of it.
    :ivar flag: its option; empty for the usual one (``--drain-window``).
    :ivar default_text: the default in words, where it depends on the surroundings.
    """

    kind: Kind
    group: str
    help: str
    live: bool = True
    flag: str = ""
    default_text: str = ""
