"""Where things lie, for tests that start processes."""

from __future__ import annotations

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(SUPPORT)])
"""With the programs that lie beside this file, and the benchmarks'."""
