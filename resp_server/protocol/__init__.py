"""The Redis wire protocol: bytes to commands, and replies to bytes. No sockets."""
