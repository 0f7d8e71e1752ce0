"""The answers that a node makes itself: one strict check for all of them."""

import json

from tests.harness.message import Response

# status -> codes that the contract lists for it
CONTRACT = {
    400: {"bad-request"},
    401: {"unauthenticated"},
    403: {"forbidden"},
    404: {"no-service"},
    408: {"request-timeout"},
    413: {"body-too-large"},
    414: {"head-too-large"},
    429: {"rate-limited"},
    431: {"head-too-large"},
    501: {"unsupported"},
    502: {"upstream-unreachable", "upstream-protocol", "tunnel-lost"},
    503: {"no-agent", "overloaded"},
    504: {"upstream-timeout"},
    505: {"unsupported"},
}
RETRY_AFTER = {429, 503}


def assert_problem(response: Response, status: int, code: str, delivery: str | None = None) -> None:
    """Exactly the contract's answer, its body well-formed."""
    shown = f"{response.status} {response.headers.fields} {response.body[:300]!r}"
    assert response.status == status, shown
    assert code in CONTRACT[status], f"{status} {code} is not in the contract"
    assert response.headers["Broker-Error"] == code, shown
    seen = response.headers["Broker-Delivery"]
    assert seen in ("never-sent", "maybe-sent", "sent"), shown
    assert delivery is None or seen == delivery, shown
    assert response.headers["Content-Type"].partition(";")[0].strip() == "application/problem+json", shown
    problem = json.loads(response.body)
    assert problem["status"] == status and problem["title"], shown
    assert isinstance(problem["detail"], str) and problem["detail"], shown
    if status in RETRY_AFTER:
        assert int(response.headers["Retry-After"]) >= 1, shown
