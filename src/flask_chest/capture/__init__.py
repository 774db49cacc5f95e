"""``g`` → variables: no hooks, no I/O."""
