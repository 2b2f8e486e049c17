"""``docs/commands.md`` says what the command table says."""

from __future__ import annotations

from pathlib import Path

from resp_server import documentation
from resp_server.commands.table import Table

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_is_current() -> None:
    hint = "run: python -m resp_server.documentation > docs/commands.md"
    assert PAGE.read_text(encoding="utf-8") == documentation.render(), hint


def test_every_command_a_client_can_send_is_on_the_page() -> None:
    headings = {line for line in documentation.render().splitlines() if line.startswith("### ")}
    for route in Table():
        subroutes = Table().subroutes(route.command)
        for one in subroutes if subroutes and route.command.serve is None else [route]:
            command = one.command
            if not command.name.endswith(" HELP"):
                assert f"### `{f'{command.name} {command.syntax}'.rstrip()}`" in headings
