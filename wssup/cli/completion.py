"""``wssup completion SHELL``: the script by which a shell completes the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from wssup.cli.exits import OK

__all__ = ["VARIABLE", "command"]

VARIABLE = "_WSSUP_COMPLETE"
"""By this variable a shell asks for completions, as click knows it."""

_HELP = """\
Print the script that lets a shell complete commands, options and their values.

\b
  wssup completion bash > ~/.local/share/bash-completion/completions/wssup
  wssup completion zsh > ~/.zfunc/_wssup
  wssup completion fish > ~/.config/fish/completions/wssup.fish

The directory must exist; zsh looks into ~/.zfunc if ~/.zshrc has fpath+=(~/.zfunc)
before compinit. Shells that are started later know it; for the one at hand alone:
source <(wssup completion bash). bash must be 4.4 or newer.

Exit status: 0, or 2 for a shell that is not known.
"""


@click.command("completion", help=_HELP, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, *, shell: str) -> int:
    """Print the script."""
    kind = get_completion_class(shell)
    assert kind is not None
    group = context.find_root().command
    script = kind(group, {}, "wssup", VARIABLE)
    # Not source(): that starts a bash to ask for its version.
    click.echo(script.source_template % script.source_vars())
    return OK
