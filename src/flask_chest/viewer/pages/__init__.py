"""The pages, one module for each: what it asks, and what it shows."""
