"""Before any test module is read: the contracts' assertions are to explain themselves."""

import pytest

pytest.register_assert_rewrite("flask_chest.testing", "influxdb_receiver", "json_values", "servers")
