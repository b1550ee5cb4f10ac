"""wssup as a systemd service: its units (the templates beside this file, filled in by render.py),
and what writes them to their places (installer.py).
"""
