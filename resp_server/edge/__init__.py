"""Sockets, disk, signals and time: the only part that imports Trio."""
