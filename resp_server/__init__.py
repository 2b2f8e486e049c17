"""The Redis front of sepakat: settings, protocol, commands, and in `resp_server.edge` the sockets."""

__version__ = "0.1.0"
