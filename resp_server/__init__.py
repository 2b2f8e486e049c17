"""The Redis front of sepakat: settings, protocol, commands, and in `resp_server.edge` the sockets."""

__version__ = "0.1.0"

REDIS_VERSION = "7.4.1"
"""The Redis whose commands and replies are spoken; clients choose features by it."""
