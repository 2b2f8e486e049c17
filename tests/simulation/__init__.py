"""Simulated clusters: the production node over a made-up network, made-up disks and clocks, and what judges a run."""
