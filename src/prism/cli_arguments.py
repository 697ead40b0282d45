"""What all commands' arguments are made of."""

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[[argparse.Namespace], int | None]


def add_command(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    text = f"settings to change, as in {example}; key=none puts a key back to its default"
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=text)


def count_argument(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least 1")
    return int(text)
