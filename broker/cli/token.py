"""broker token"""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group(short_help="Make the credentials of agents.")
def token() -> None:
    """Make the credentials of agents. Only their hashes stand in configuration files."""


@token.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the token to a new file that only you can read, and print the hash alone.",
)
def new(out: Path | None) -> None:
    """Make a token; print it, this once, and its hash.

    The first line is the token: it belongs into a file beside the agent (--token-file). The second is the
    hash: it belongs into the DMZ node's configuration, under users, tokens.

    \b
      broker token new --out orders.token
    """
    from broker.config.tokens import new_token, token_hash, write_token_file

    made = new_token()
    if out:
        write_token_file(out, made)
    else:
        click.echo(made.reveal())
    click.echo(token_hash(made))


@token.command("hash")
@click.option(
    "passwords",
    "--password",
    is_flag=True,
    help="It is a password that a person chose: print a salted, slow hash, for users, passwords.",
)
def hash_(passwords: bool) -> None:
    """Print the hash of a token or password, which is read from standard input.

    \b
      broker token hash < orders.token
      broker token hash --password            # asks for it
    """
    from broker.config.passwords import format_password_hash, hash_password, parse_password
    from broker.config.tokens import parse_token, token_hash
    from broker.errors import UsageError

    if sys.stdin.isatty():
        text = click.prompt(
            "Password" if passwords else "Token", hide_input=True, confirmation_prompt=passwords
        )
    else:
        text = sys.stdin.read(4097)
    try:
        if passwords:
            click.echo(format_password_hash(hash_password(parse_password(text))))
        else:
            click.echo(token_hash(parse_token(text)))
    except ValueError as error:
        raise UsageError(str(error)) from None
