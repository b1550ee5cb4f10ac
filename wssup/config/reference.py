"""``docs/reference/settings.md``, rendered from the table of settings.

``python -m wssup.config.reference`` prints it.
"""

from __future__ import annotations

import sys
from itertools import groupby

from wssup.config.settings import SETTINGS, Setting

__all__ = ["render"]

_HEAD = """\
<!-- Made by `python -m wssup.config.reference`; a test holds it equal. -->
# Settings

Every setting can be given in four places. The later ones win:

1. its default;
2. the file that `--config` or `WSSUP_CONFIG` names; else `wssup.toml` in the current directory;
3. an environment variable (an empty one counts as not given);
4. an option of `wssup serve`.

An unknown key, an unknown `WSSUP_` variable or an impossible value is an error that names the key,
the value, where it was given and the remedy. Nothing is started then, and the exit status is 2.
`wssup config` prints every setting and where it came from.

**Durations** are seconds, or text with a unit: `30`, `"500ms"`, `"30s"`, `"2m"`, `"8h"`, `"1d"`; at
most 365 days. **Sizes** are bytes, or text with a unit: `65536`, `"64KiB"`, `"1MiB"`, `"1GiB"`.
**Shares** are 0 to 1, or text in percent: `0.01`, `"1%"`.
**Relative paths** in the file start from the file's directory, elsewhere from the current one.
Links in paths are kept, so that `releases/current` may point elsewhere at the next reload.

**Live** settings are applied by `wssup reload`. The others need a restart, and a reload names those
that changed.

```toml
app = "shop.chat:app"
bind = ["0.0.0.0:8000", "[::]:8000"]
workers = 8
on_reload = "wait"
drain_timeout = "8h"

[limits]
message_bytes = "64KiB"
```
"""


def render() -> str:
    """The reference of all settings as Markdown."""
    parts = [_HEAD, "\n| setting | default | live |\n|---|---|---|\n"]
    for setting in SETTINGS.values():
        live = "yes" if setting.spec.live else "no"
        parts.append(f"| [`{setting.key}`](#{_anchor(setting)}) | {_default(setting)} | {live} |\n")
    for group, settings in groupby(SETTINGS.values(), key=lambda setting: setting.spec.group):
        parts.append(f"\n## {group}\n")
        parts += [_entry(setting) for setting in settings]
    return "".join(parts)


def _anchor(setting: Setting) -> str:
    """The fragment that renderers of Markdown give to the setting's heading."""
    return setting.key.replace(".", "")


def _default(setting: Setting) -> str:
    return setting.spec.default_text or f"`{setting.default_text}`"


def _entry(setting: Setting) -> str:
    flag = setting.flag
    if setting.kind.metavar:
        option = f"`{flag} {setting.kind.metavar}`" if flag.startswith("--") else f"`{flag}`"
    else:
        option = f"`{flag}` or `{flag.replace('--', '--no-', 1)}`"
    return (
        f"\n### `{setting.key}`\n\n{setting.spec.help}\n\n"
        f"- values: {setting.kind.description}\n"
        f"- default: {_default(setting)}\n"
        f"- option: {option}\n"
        f"- environment: `{setting.environment}`\n"
        f"- live: {'yes' if setting.spec.live else 'no, needs a restart'}\n"
    )


if __name__ == "__main__":
    sys.stdout.write(render())
