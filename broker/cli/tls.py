"""broker tls"""

from __future__ import annotations

import json
from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.group(short_help="Certificates: make some, show and check what is presented, map them to users.")
def tls() -> None:
    """Certificates: a development CA, what ports present, what a peer negotiates, whose a certificate is."""


@tls.command()
@click.argument("directory", type=FILE)
@click.option("--name", "names", multiple=True, help="Of the server, beside localhost; can be repeated.")
def init(directory: Path, names: tuple[str, ...]) -> None:
    """Make a development CA, certificates of a server, an agent and a client, and a configuration with them.

    Nothing is overwritten. Keys are readable for you alone. For production use certificates of a CA that is
    run as one: whoever has ca.key can be anybody here.

    \b
      broker tls init dev --name dmz.example.com
      broker serve dev/dmz.yaml
      broker connect dev/green.yaml
      curl --cacert dev/ca.crt https://localhost:8443/
    """
    from broker.errors import RunError, UsageError
    from broker.tls.development import create

    try:
        made = create(directory, names)
    except FileExistsError as error:
        raise RunError(str(error)) from None
    except OSError as error:
        raise RunError(f"{error.filename} can't be written: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"a certificate can't have that name: {error}") from None
    for path in made:
        click.echo(path)
    click.echo(f"\nbroker serve {directory}/dmz.yaml\nbroker connect {directory}/green.yaml", err=True)


@tls.command()
@click.argument("config", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def show(config: Path, as_json: bool) -> None:
    """Show what the ports of a configuration present: names, until when, and what is asked of clients.

    \b
      broker tls show dmz.yaml
    """
    from broker.cli.tls_tables import show_lines
    from broker.config import Flags, load
    from broker.config.presented import presented
    from broker.errors import RunError

    found = load(config, Flags(insecure=True))
    try:
        entries = presented(found)
    except ValueError as error:
        raise RunError(str(error)) from None
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo("\n".join(show_lines(entries)) or f"{config} has no TLS")


@tls.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--name", help="Ask for this name (SNI) and verify it, instead of HOST.")
@click.option("--ca", type=FILE, help="Believe only the CAs of this file; else those of the system.")
@click.option("--cert", type=FILE, help="A client certificate to show.")
@click.option("--key", type=FILE, help="Its key.")
@click.option("--timeout", default=5.0, type=click.FloatRange(0.1, 60), help="Seconds for each step; 5.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def check(
    address: str,
    name: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Look at somebody's TLS from outside: what is negotiated and presented, and what is wrong with it.

    It makes a few connections of its own. The exit code is 1 where something is wrong.

    \b
      broker tls check www.example.com:443
      broker tls check 10.0.0.5:7000 --name dmz.example.com --ca ca.crt --cert agent.crt --key agent.key
    """
    from broker.cli.tls_tables import check_lines
    from broker.config.values import parse_place
    from broker.errors import RunError, UsageError
    from broker.tls.probe import Peer, probe
    from broker.tls.settings import Certificate

    if (cert is None) != (key is None):
        raise UsageError("--cert and --key belong together")
    own = Certificate(cert=cert, key=key) if cert is not None and key is not None else None
    try:
        host, port = parse_place(address.rpartition("://")[2].rstrip("/"), 443, "dmz.example.com:443", 1)
    except ValueError as error:
        raise UsageError(f"{address}: {error}") from None
    try:
        found = probe(Peer(host, port, name or host, ca, own, timeout))
    except OSError as error:
        raise RunError(f"no connection to {address}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps({"peer": address, **found.shown, "problems": found.problems}, indent=2))
    else:
        click.echo("\n".join(check_lines(address, found.shown, found.problems)))
    if found.problems:
        click.get_current_context().exit(1)


@tls.command("map")
@click.argument("certificate", type=FILE)
@click.option("--user", required=True, metavar="NAME", help="Whose certificate it is to be.")
@click.option("--ca", type=FILE, help="Map by names under the CA in this file, not by fingerprint.")
@click.option(
    "--subject",
    is_flag=False,
    flag_value="",
    metavar="[PATTERN]",
    help="With --ca: by the subject, such as 'CN=orders-*'; without a pattern, the certificate's own.",
)
@click.option(
    "--san",
    is_flag=False,
    flag_value="",
    metavar="[PATTERN]",
    help="With --ca: by a subject alternative name, such as 'DNS:*.agents.example'; likewise.",
)
def map_(certificate: Path, user: str, ca: Path | None, subject: str | None, san: str | None) -> None:
    """Print what makes a certificate that of a user: its fingerprint, and what to add to the configuration.

    \b
      broker tls map agent.crt --user orders-team
      broker tls map agent.crt --user orders-team --ca agents-ca.crt --subject 'CN=orders-*'
    """
    from broker.config.values import parse_user_name
    from broker.errors import UsageError
    from broker.identity.mapping import by_fingerprint, by_names
    from broker.tls.describe import fingerprint
    from broker.tls.files import read_certificates

    if (ca is None) != (subject is None and san is None):
        raise UsageError("--ca needs --subject or --san, and they need --ca")
    try:
        name = parse_user_name(user)
        chain = read_certificates(certificate)
        if ca is None:
            rule = by_fingerprint(name, chain[0])
        else:
            rule = by_names(name, chain, ca, read_certificates(ca), subject, san)
    except ValueError as error:
        raise UsageError(str(error)) from None
    click.echo(fingerprint(chain[0]))
    click.echo(rule, nl=False)
