"""``python -m resp_server`` is ``sepakat``."""

from resp_server.cli import main

main()
