"""``wssup serve``: run an instance in the foreground."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import click

from wssup.cli.options import GroupedCommand, config_option, load_instance, setting_options
from wssup.cli.text import one_line
from wssup.config.settings import SETTINGS

__all__ = ["command"]

_HELP = """\
Serve the WebSocket application MODULE:ATTR until it is told to stop.

MODULE is imported from the application directory; ATTR is its handler, such as
`async def app(request)` written for trio_websocket, or an object with hooks such as
`def on_receive(self, ws, data)`.

\b
  wssup serve shop.chat:app
  wssup serve shop.chat:app --bind 0.0.0.0:8000 --bind '[::]:8000' --workers 8
  wssup serve shop.chat:app --connections 100000
  wssup serve shop.chat:app --workers min=2,max=8,connections_per_worker=5000
  wssup serve --config /etc/wssup/shop.toml
  wssup serve --gunicorn-config gunicorn.conf.py

Order of strength: defaults < file < environment < options. Durations are seconds
or text such as 500ms, 30s, 2m, 8h; sizes bytes or text such as 64KiB, 1MiB.
Each option is also the environment variable WSSUP_OPTION (WSSUP_DRAIN_WINDOW,
WSSUP_LIMITS_MESSAGE_BYTES).

With --connections the number of workers follows from them and the limit of open
files; with bounds for --workers it follows the load.

Signals: HUP reloads; TERM drains and stops; INT and QUIT stop fast; TTIN and
TTOU run one worker more or less.

Exit status: 0 stopped as told; 1 the application cannot be imported or no worker
can be started; 2 a mistake in the command or the configuration, connections that
do not fit, an address in use, or another instance of this name: nothing was started.
"""


@click.command("serve", cls=GroupedCommand, help=_HELP, short_help="Serve an application.")
@click.argument("app", metavar="[MODULE:ATTR]", required=False)
@config_option
@setting_options(key for key in SETTINGS if key != "app")
def command(config_file: str | None, **given: Any) -> int:
    """Load the settings and run the master."""
    loaded = load_instance(given, config_file, required=("app",))
    for left in loaded.left:
        file = PurePath(loaded.settings.gunicorn_config).name
        click.echo(f"wssup: {one_line(f'{file}: {left}')}", err=True)
    # The master is what only this command needs.
    from wssup.supervisor.serving import serve  # noqa: PLC0415

    return serve(loaded)
