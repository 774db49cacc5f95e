"""Keep what ``flask.g`` knows about each request."""

__version__ = "0.1.0"
