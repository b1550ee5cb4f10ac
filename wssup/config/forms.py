"""The forms of the settings that are names: of instances, applications, headers, origins, keys."""

from __future__ import annotations

from wssup.config.kinds import Names, Text

__all__ = ["APP", "HEADERS", "NAME", "NAMESPACE", "ORIGINS", "ROOT_PATH"]

NAME = Text(
    pattern="[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    form="1 to 64 letters, digits, dots, underscores or hyphens, the first a letter or digit",
    example="default",
    placeholder="NAME",
)
NAMESPACE = Text(
    pattern="[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    form="1 to 64 letters, digits, dots, underscores or hyphens, the first a letter or digit",
    example="wssup",
    placeholder="NAME",
)
APP = Text(
    pattern=r"(?!\d)\w+(?:\.(?!\d)\w+)*:(?!\d)\w+(?:\.(?!\d)\w+)*",
    form="a module and an attribute of it, with a colon between them",
    example="shop.chat:app",
    placeholder="MODULE:ATTR",
)
ROOT_PATH = Text(
    pattern=r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*",
    form="a path that begins with a slash and ends with none",
    example="/chat",
    placeholder="PATH",
)
HEADERS = Names(
    pattern=r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}",
    form="the name of a header",
    example='["cookie", "x-forwarded-for"]',
    placeholder="NAMES",
    word="all",
)
ORIGINS = Names(
    pattern=r"\*|[a-z][a-z0-9+.-]*://(?:\*\.)?[a-z0-9.-]+(?::[0-9]{1,5})?"
    r"|[a-z][a-z0-9+.-]*://\[[0-9a-f:.]+\](?::[0-9]{1,5})?|null",
    form="an origin (`https://example.com`, `https://*.example.com`) or `*`",
    example='["https://example.com"]',
    placeholder="ORIGIN",
    least=1,
)
