"""Records as MongoDB's documents: names and values come back equal, and no name means something to the server."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import bson
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st
