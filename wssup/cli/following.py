"""Following a command that takes its time: a reload, a scaling, the end of an instance."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from wssup.cli.client import Document, Target
from wssup.cli.progress import Progress
from wssup.config.values import format_duration
from wssup.errors import CommandError

__all__ = ["GRACE", "check_alive", "follow", "see_off"]

GRACE: Final = 10.0
"""Seconds beyond its own deadline that an instance gets for ending: it reaps and cleans up."""


def follow(target: Target, command: str, *, interrupted: str, **arguments: object) -> Document:
    """Show what the command does and return its result.

    A master that is silent for long is asked for its status: it may have nothing to tell.

    :param interrupted: what to say on Ctrl-C, which ends the waiting alone.
    :raises CommandError: if the master refuses, ends or stops answering.
    :raises click.Abort: on Ctrl-C.
    """
    try:
        with target.connect() as conversation, Progress() as progress:
            conversation.send(command, **arguments)
            return conversation.result(progress, lambda: check_alive(target))
    except KeyboardInterrupt:
        sys.stderr.write(f"wssup: {interrupted}\n")
        raise click.Abort from None


def see_off(
    target: Target, command: str, *, patience: float, interrupted: str, **arguments: object
) -> None:
    """Give a command that ends the instance, and wait until it is gone and its lock is free.

    :param patience: seconds it may take, until the master says how long it will.
    :raises CommandError: if it refuses, does not answer, or (``timeout``) still runs afterwards.
    :raises click.Abort: on Ctrl-C.
    """
    deadline = time.monotonic() + patience + GRACE
    heard = False

    def on_event(event: Document) -> None:
        nonlocal deadline, heard
        heard = True
        seconds = event.get("deadline")
        if isinstance(seconds, int | float):
            deadline = time.monotonic() + seconds + GRACE
        progress(event)

    def on_silence() -> None:
        if not heard:
            check_alive(target)
        if time.monotonic() > deadline:
            raise _still_runs(target, began)

    began = time.monotonic()
    try:
        with target.connect() as conversation, Progress() as progress:
            conversation.send(command, **arguments)
            try:
                conversation.result(on_event, on_silence)
                heard = True
                conversation.wait_for_end(on_event, on_silence)
            except CommandError as error:
                # Gone without a word is gone too, if its lock says so.
                if error.code != "ended":
                    raise
            if not target.wait_until_gone(deadline):
                raise _still_runs(target, began)
    except KeyboardInterrupt:
        sys.stderr.write(f"wssup: {interrupted}\n")
        raise click.Abort from None


def check_alive(target: Target) -> None:
    """Raise CommandError (``no_answer``, or ``ended``) unless the master answers."""
    try:
        target.ask("status")
    except CommandError as error:
        if error.code != "not_running":
            raise
        raise CommandError(
            "ended", f"instance {target.name!r} ended meanwhile", "see its log"
        ) from None


def _still_runs(target: Target, began: float) -> CommandError:
    waited = format_duration(round(time.monotonic() - began, 1))
    return CommandError(
        "timeout",
        f"instance {target.name!r} still runs after {waited}",
        f"wssup stop --fast, or kill -9 the pid that its lock names: {target.directory / 'lock'}",
    )
