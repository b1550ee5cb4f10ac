"""The engine's figures beside those of its peers and of a C floor.

A C load generator, every server alone on one processor, medians of interleaved runs, one set of
markdown tables. ``python -m benchmarks.engine --help`` says how to measure less of it.
"""
