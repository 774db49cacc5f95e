"""What runs outside of requests: the writer, the exporters, retention, counts."""
