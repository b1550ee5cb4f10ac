"""All checks, in the order in which they are shown when they have nothing to say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from wssup.doctor.checks import admission, descriptors, memory, network, ports
from wssup.doctor.facts import Facts
from wssup.doctor.findings import Finding
from wssup.doctor.plan import Plan

__all__ = ["CHECKS", "examine"]

Check = Callable[[Facts, Plan], Iterator[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    descriptors.per_process,
    descriptors.ceiling,
    descriptors.others,
    descriptors.machine,
    admission.max_connections,
    admission.worker_connections,
    admission.handshakes,
    memory.group,
    memory.machine,
    memory.reload,
    memory.address_space,
    memory.tasks,
    memory.users_tasks,
    network.accept_queue,
    network.syn_queue,
    network.tcp_memory,
    network.conntrack,
    network.migration,
    network.counters,
    network.speed,
    ports.proxy_ports,
    ports.listeners,
    ports.heartbeat,
)


def examine(facts: Facts, plan: Plan) -> list[Finding]:
    """What every check finds."""
    return [finding for check in CHECKS for finding in check(facts, plan)]
