"""One request, and what is left of it: a span, a log line and a record that carry the same id."""
