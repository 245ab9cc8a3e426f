"""The fixtures that the tests of the simulator and of collect share."""

from simulator.fixtures import chart_of_a_day, chart_of_all_days, client, market, simulator, waits  # noqa: F401
