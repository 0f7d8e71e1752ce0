"""The commands as processes, against running nodes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.nodes import Pair, World, everything
from tests.harness.process import broker, environment

FILES = Path(__file__).parents[1] / "config"


def command(
    *args: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "broker", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env=environment(env),
    )


def admin(pair: Pair) -> str:
    return str(pair.dmz.config["admin"]["listen"])


def test_check_and_token(tmp_path: Path) -> None:
    right = command("check", FILES / "valid" / "dmz.yaml", cwd=tmp_path)
    assert (right.returncode, right.stderr) == (0, "")
    wrong = command("check", FILES / "invalid" / "keys.yaml", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert len(wrong.stderr.splitlines()) == 7
    token = command("token", "new", cwd=tmp_path)
    assert re.fullmatch(r"broker_\S{43}\nsha256:[0-9a-f]{64}\n", token.stdout)


def test_a_port_that_is_taken_ends_with_1(world: World, tmp_path: Path) -> None:
    dmz = world.dmz()
    taken = dmz.config["external"][0]["listen"]
    second = command("serve", "--external", taken, "--service", "http://127.0.0.1:9", cwd=tmp_path)
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"{taken}: another process listens there" in second.stderr


def test_the_log_as_it_was_asked_for(tmp_path: Path) -> None:
    """In both processes of a node with workers, too."""
    ports = ("--external", "http://127.0.0.1:0", "--registration", "http://127.0.0.1:0")
    admin = ("--admin", "http://127.0.0.1:0")
    log = ("--log-format", "text", "--log-level", "info", "--workers", "2")
    with broker("serve", *ports, *admin, *log) as node:
        node.wait_for_line(
            r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info listening admin http://127\.0\.0\.1:\d+$"
        )
        node.wait_for_line(r" info ready$")
        node.terminate()
        node.expect_exit(0)
        assert not [line for line in node.stderr if line.startswith("{")], node.output
    with broker(
        "connect", "http://127.0.0.1:9", "--service", "http://127.0.0.1:9", "--log-level", "debug"
    ) as agent:
        assert json.loads(agent.wait_for_line("dialling").string)["level"] == "debug"
        agent.terminate()
        agent.expect_exit(0)
    wrong = command("serve", "--log-level", "loud", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "'debug', 'info', 'warning', 'error'" in wrong.stderr


COMPLETION = re.compile(r'`(eval "\$\(_BROKER_COMPLETE=bash_source broker\)")`')
PACKAGES = Path(__file__).parents[2] / "packaging" / "README.md"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("broker se", ["serve"]),
        ("broker re", ["reload"]),
        ("broker tls ", ["check", "init", "map", "show"]),
        ("broker serve --log-f", ["--log-format"]),
        ("broker connect --log-level w", ["warning"]),
    ],
)
def test_completion_in_bash(tmp_path: Path, words: str, expected: list[str]) -> None:
    """As packaging/README.md says."""
    (line,) = COMPLETION.findall(PACKAGES.read_text())
    program = tmp_path / "broker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m broker "$@"\n')
    program.chmod(0o755)
    count = len(words.split(" ")) - 1
    script = [
        f"PATH={tmp_path}:$PATH",
        line,
        f"COMP_WORDS=({words.replace(' ', chr(10)) if not words.endswith(' ') else words + chr(39) * 2})",
        f"COMP_CWORD={count}",
        "_broker_completion broker",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split()) == expected


def test_status(pair: Pair, tmp_path: Path) -> None:
    machines = command("status", "--json", "--admin", admin(pair), cwd=tmp_path)
    assert machines.returncode == 0
    assert len(json.loads(machines.stdout)["tunnels"]) == 1
    people = command("status", "--admin", admin(pair), cwd=tmp_path, env={"NO_COLOR": "1", "FORCE_COLOR": ""})
    assert (people.returncode, people.stderr) == (0, "")
    assert "\x1b" not in people.stdout
    for title in ("external", "registration", "tunnels", "services"):
        assert re.search(rf"^{title}\s*$", people.stdout, re.MULTILINE)


def test_reload_and_its_errors(world: World, tmp_path: Path) -> None:
    pair = world.pair()
    url = admin(pair)
    assert command("reload", "--admin", url, cwd=tmp_path).returncode == 0
    right = pair.dmz.config
    pair.dmz.write({**right, "limts": {}})
    refused = command("reload", "--admin", url, cwd=tmp_path)
    assert refused.returncode == 2
    assert "limts: is not a known key; did you mean limits?" in refused.stderr
    pair.assert_alive()
    pair.dmz.write({**right, "limits": {"uri": 64}})
    assert command("reload", "--admin", url, cwd=tmp_path).returncode == 0
    assert pair.fetch("/" + "a" * 100).status == 414


def test_drain_and_stop(world: World, tmp_path: Path) -> None:
    origin = world.origin()
    dmz = world.dmz()
    agent = world.agent(dmz.registration_url(), [everything(origin)])
    for node, word in ((agent, "drain"), (dmz, "stop")):
        assert command(word, "--admin", node.config["admin"]["listen"], cwd=tmp_path).returncode == 0
        node.process.expect_exit(0)
