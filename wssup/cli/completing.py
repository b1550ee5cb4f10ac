"""What a shell may complete in the place of a setting's value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.shell_completion import CompletionItem

from wssup.config.kinds import Choice, Kind
from wssup.config.loading import CONTROL_SOCKET
from wssup.config.settings import Setting

__all__ = ["instances", "values"]


def values(
    setting: Setting, incomplete: str, *, runtime_dir: Callable[[], str]
) -> list[CompletionItem]:
    """Values of `setting` that begin with `incomplete`, or the kind of path that it is.

    :param runtime_dir: where instances are looked for.
    """
    kind: Kind = setting.kind
    if isinstance(kind, Choice):
        return [CompletionItem(word) for word in kind.words if word.startswith(incomplete)]
    if kind.metavar == "DIR":
        return [CompletionItem(incomplete, type="dir")]
    if kind.metavar == "FILE":
        return [CompletionItem(incomplete, type="file")]
    if setting.key == "name":
        return [CompletionItem(n) for n in instances(runtime_dir()) if n.startswith(incomplete)]
    return []


def instances(runtime_dir: str) -> list[str]:
    """Names of the instances that have a control socket, running or left by one that was killed."""
    try:
        return sorted(path.parent.name for path in Path(runtime_dir).glob(f"*/{CONTROL_SOCKET}"))
    except OSError:
        return []
