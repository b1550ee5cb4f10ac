"""Holds what an instance counts against what the kernel has. Pure: cli/looking.py looks.

``places`` are the addresses that are served, ``holding`` sorts what a process holds, and
``judging`` says what is wrong.
"""
