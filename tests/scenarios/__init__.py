"""Scenarios a person can read: what is done to a few nodes, and what comes of it. See `tests.scenarios.script`."""
