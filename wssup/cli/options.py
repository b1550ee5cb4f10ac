"""Options of the commands, made from the table of settings.

Their values stay text here: the settings' own kinds read them, so that a mistake is reported in the
same words wherever it was made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from wssup.cli import completing
from wssup.cli.client import ANSWER_TIMEOUT, Target
from wssup.config.loading import Loaded, load
from wssup.config.settings import SETTINGS, Setting
from wssup.errors import UserError

__all__ = [
    "GroupedCommand",
    "SettingOption",
    "config_option",
    "instance_options",
    "load_instance",
    "setting_options",
    "target_of",
]

F = TypeVar("F", bound=Callable[..., Any])

_INSTANCE: Final = ("name", "runtime_dir")


class SettingOption(click.Option):
    """The option of a setting."""

    def __init__(self, param_decls: Sequence[str], *, setting: Setting, **attributes: Any) -> None:
        self.setting = setting
        super().__init__(param_decls, **attributes)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell may complete. Where the configuration has a mistake, that is for a command
        to tell: there is nothing to complete then.
        """

        def runtime_dir() -> str:
            given = {name: ctx.params[name] for name in _INSTANCE if ctx.params.get(name)}
            try:
                return load_instance(given, ctx.params.get("config_file")).settings.runtime_dir
            except UserError:
                return ""

        return completing.values(self.setting, incomplete, runtime_dir=runtime_dir)


class GroupedCommand(click.Command):
    """A command whose help puts the options of settings under the headings of the table."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option):
                continue
            group = "Options"
            if isinstance(parameter, SettingOption):
                group = parameter.setting.spec.group
            groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def parameter_name(key: str) -> str:
    """The name of a setting's parameter: ``limits__message_bytes``."""
    return key.replace(".", "__")


def setting_options(keys: Iterable[str]) -> Callable[[F], F]:
    """The options of the settings `keys`, in their order."""

    def decorate(function: F) -> F:
        for key in reversed(list(keys)):
            function = _option(SETTINGS[key])(function)
        return function

    return decorate


def instance_options(function: F) -> F:
    """The options that say which instance a command is for, the last ones of its help."""
    timeout = click.option(
        "--answer-timeout",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        default=ANSWER_TIMEOUT,
        hidden=True,
    )
    return setting_options(_INSTANCE)(config_option(timeout(function)))


def config_option(function: F) -> F:
    """The option ``--config``."""
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        shell_complete=lambda _context, _option, part: [CompletionItem(part, type="file")],
        help="The configuration file. [env: WSSUP_CONFIG; default: wssup.toml if there is one]",
    )(function)


def load_instance(
    given: dict[str, Any], config_file: str | None, *, required: Collection[str] = ()
) -> Loaded:
    """The settings, with those that options gave.

    :param given: the parameters of the command.
    :raises UserError: as `wssup.config.load`.
    """
    cli = {key: given[parameter_name(key)] for key in SETTINGS if parameter_name(key) in given}
    return load(cli=cli, environ=os.environ, config_file=config_file, required=required)


def target_of(given: dict[str, Any], loaded: Loaded | None = None) -> Target:
    """The instance that the instance options name.

    :raises UserError: as `wssup.config.load`.
    """
    settings = (loaded or load_instance(given, given["config_file"])).settings
    directory = Path(settings.runtime_dir, settings.name)
    return Target(settings.name, directory, given["answer_timeout"])


def _option(setting: Setting) -> Callable[[F], F]:
    flag = setting.flag
    default = setting.default_text.replace("`", "").replace('"', "")
    text = f"{setting.spec.help} [default: {default}]"
    attributes: dict[str, Any] = {"type": str, "metavar": setting.kind.metavar}
    if not setting.kind.metavar:
        flag = f"{flag}/{flag.replace('--', '--no-', 1)}"
        attributes = {"type": bool, "default": None}
    elif isinstance(setting.default, tuple):
        attributes["multiple"] = True
        text = f"{setting.spec.help} Repeatable. [default: {', '.join(setting.default)}]"
    name = parameter_name(setting.key)
    return click.option(flag, name, cls=SettingOption, setting=setting, help=text, **attributes)
