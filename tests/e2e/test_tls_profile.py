"""sslyze's judgement of an https port as it is without any setting: Mozilla's intermediate profile."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.harness.certificates import Authority
from tests.harness.nodes import World, loopback
from tests.harness.sslyze import sslyze


@pytest.mark.timeout(180)
def test_mozilla_intermediate(world: World, tmp_path: Path) -> None:
    """With a certificate of either kind; and the judgement can be another."""
    authority = Authority(tmp_path)
    key = rsa.generate_private_key(65537, 2048)
    ports = []
    for files, tls in (
        (authority.issue("localhost", days=80), {}),
        (authority.issue("localhost", days=80, key=key), {}),
        (authority.issue("localhost", days=80), {"ciphers": "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"}),
    ):
        settings = {"certificates": [files.snippet()], **tls}
        ports.append({"name": f"web-{len(ports)}", "listen": loopback("https"), "tls": settings})
    node = world.dmz({"external": ports, "registration": []})
    arguments = ["--mozilla_config=intermediate", f"--certinfo_ca_file={authority.ca}"]
    for index, good in enumerate((True, True, False)):
        judged = sslyze(*arguments, f"localhost:{node.external_at(index)[1]}")
        assert ("COMPLIANCE AGAINST" in judged.stdout) and (": OK - Compliant" in judged.stdout) == good, (
            judged.stdout + judged.stderr
        )
        assert (judged.returncode == 0) == good
