"""``docs/reference/metrics.md``, rendered from the table of metrics.

``python -m wssup.observer.reference`` prints it.
"""

from __future__ import annotations

import sys
from itertools import groupby

from wssup.observer.catalogue import METRICS, Metric

__all__ = ["render"]

_HEAD = """\
<!-- Made by `python -m wssup.observer.reference`; a test holds it equal. -->
# Metrics

`GET /metrics` on the [status socket](http.md), in OpenMetrics if the client accepts it (Prometheus
does) and in Prometheus's text format otherwise. How to have them scraped, the alert rules and the
Grafana dashboard: [monitoring](../how-to/monitoring.md).

No worker is asked for anything: counts come from the scoreboard, memory and descriptors from /proc,
accept queues from the kernel (sock_diag), the rest from what the master told last.

- **Counters** are of the whole instance, all workers that there are and were. They begin at 0 when
  the master starts, and never go backwards while it lives: not when a worker crashes, a reload
  replaces all, or the observer starts again. Should a starting observer not be able to read all of
  them (the master was stopped while it counts a dead worker), it leaves counters out of that scrape
  rather than showing less.
- **Gauges** of a worker have its slot as `worker`, which stays the same for ever, and its
  `generation`, so that old workers stand beside new ones during a rollout. Two workers of one slot
  and generation, while one takes the other's place, are added up. A process id is no label.
- **Histograms** have exact sums. Their buckets are powers of two; of pauses, of the square root of
  two.
- A label that does not apply is empty, which is the same as none to Prometheus.
"""


def render() -> str:
    """The reference of all metrics as Markdown."""
    parts = [_HEAD]
    for group, metrics in groupby(METRICS.values(), key=lambda metric: metric.group):
        parts.append(f"\n## {group}\n\n| metric | type | labels | |\n|---|---|---|---|\n")
        parts += [_line(metric) for metric in metrics]
    parts.append("\n## Values of labels\n\n| metric | label | values |\n|---|---|---|\n")
    for metric in METRICS.values():
        for label, values in metric.values.items():
            shown = ", ".join(f"`{value}`" for value in values)
            parts.append(f"| `{metric.name}` | `{label}` | {shown} |\n")
    return "".join(parts)


def _line(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
