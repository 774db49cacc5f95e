"""Contracts, doubles and helpers for the tests of applications and of own backends."""
