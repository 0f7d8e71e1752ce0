"""The status of running nodes."""

import json

import jsonschema

from broker.observe.snapshot import merge, schema
from tests.unit.test_node_node import ANY, Rig, external_url, registration_url, with_rig


def test_the_status_is_what_its_schema_says():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz(external=(ANY, "tcp://127.0.0.1:0/db"))
        agent = await rig.agent(dmz, f"x.example={await rig.upstream()}", "db=tcp://127.0.0.1:9")
        await rig.get(external_url(dmz), Host="x.example")
        await rig.get(external_url(dmz), Host="nobody.example")
        validator = jsonschema.Draft202012Validator(schema())
        for node in (dmz, agent):
            validator.validate(json.loads(json.dumps(node.status())))
        merged = merge([dmz.status(), dmz.status()])
        validator.validate(json.loads(json.dumps(merged)))
        counted = {row["service"]: row for row in dmz.status()["requests"]}
        assert counted["x.example/"]["statuses"] == {"200": 1}
        assert counted["(none)"]["failures"] == {"no-service": {"never-sent": 1}}
        (row,) = agent.status()["requests"]
        assert (row["port"], row["service"], row["statuses"]) == (
            registration_url(dmz),
            "x.example/",
            {"200": 1},
        )
        assert [sum(row["durations"][hop]["buckets"]) for hop in ("wait", "upstream", "total")] == [1, 1, 1]

    with_rig(test)
