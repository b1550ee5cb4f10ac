"""The observer: one process of an instance that tells others about it, over HTTP.

It reads the scoreboard and is told facts by the master; whether it answers, hangs or dies, the
workers serve on, and it is started again.

Metrics: ``catalogue`` is the table of all metrics, ``families`` (pure) fills it, ``metrics`` looks
and answers; ``procs`` asks /proc, ``queues`` asks the kernel for accept queues (wssup/kernel).
"""
