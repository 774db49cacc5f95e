"""Keeps a claim while its batch is delivered, however long that takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from flask_chest.background.suppression import suppressed
from flask_chest.errors import describe
from flask_chest.protocols import Claim, Outbox

logger = logging.getLogger("flask_chest.export")

RENEWALS = 3
"""How often a lease is renewed in its time: one that fails leaves time for another."""


class Lease:
    """Renews the lease of one claim after the other, from a thread that the first of them begins."""

    def __init__(self, outbox: Outbox, length: timedelta) -> None:
        self._outbox = outbox
        self._length = length
        self._claim: Claim | None = None
        self._lost = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Whether another process has taken the claim that is held."""
        return self._lost

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Keep *claim* until the block ends."""
        self._claim, self._lost = claim, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="flask_chest lease", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._claim = None

    def end(self) -> None:
        """Renew nothing any more."""
        self._over.set()

    def _renew(self) -> None:
        with suppressed():
            self._renew_until_over()

    def _renew_until_over(self) -> None:
        while not self._over.wait(self._length.total_seconds() / RENEWALS):
            claim = self._claim
            if claim is None:
                continue
            try:
                kept = self._outbox.renew(claim, lease=self._length)
            except Exception as exc:  # noqa: BLE001 - the next renewal may succeed, and the acknowledgement tells
                logger.debug("the lease of %s was not renewed%s", claim.exporter, describe(exc))
                continue
            if not kept and self._claim is claim:
                self._lost = True
