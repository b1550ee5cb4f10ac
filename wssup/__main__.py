"""``python -m wssup`` is ``wssup``."""

from __future__ import annotations

import sys

from wssup.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
