"""What a reload does to live connections: wssup's, with all its connections moved, beside peers'.

Tens of thousands of connections from C clients, some of which talk all the time; what they see is
the figure. ``python -m benchmarks.handoff --help`` says how to measure less of it.
"""
