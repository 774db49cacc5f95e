"""Exporters, one file per kind of target; importing one needs its driver."""
