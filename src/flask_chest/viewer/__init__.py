"""The viewer: pages that show what a chest holds, in the app or by ``flask chest serve``.

It is closed unless the *allow* of its mounting returns ``True`` in the request at hand, and it only reads.
"""

from flask_chest.viewer._access import basic_auth
from flask_chest.viewer._mount import viewer

__all__ = ["basic_auth", "viewer"]
