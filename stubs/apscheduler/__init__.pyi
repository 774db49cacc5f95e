# What flask_chest uses of APScheduler 3, which carries no types of its own. `make check` holds it against the
# installed release with stubtest.
