"""The page at the admin port, in Chromium: it lives, serves a keyboard and a phone, and it is inert."""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from broker.config.tokens import new_token, token_hash
from tests.harness.browser import Browser
from tests.harness.client import fetch, host_of
from tests.harness.nodes import Node, Pair, World, loopback
from tests.harness.waiting import wait_equal, wait_until

pytestmark = pytest.mark.timeout(180, method="signal")

Alter = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.resize(1280, 900)
    chromium.scheme("light")
    yield chromium
    chromium.open("about:blank")


def url_of(node: Node) -> str:
    return f"{node.config['admin']['listen']}/"


@contextmanager
def mirror(node: Node, alter: Alter) -> Iterator[str]:
    """The node's page over a status that was changed on the way: a node that says what it likes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urllib.request.urlopen(node.config["admin"]["listen"] + self.path, timeout=20) as answer:
                body, headers = answer.read(), answer.headers
            if self.path == "/status":
                status = json.loads(body)
                alter(status)
                body = json.dumps(status).encode()
            self.send_response(200)
            for name in (
                "Content-Type",
                "Content-Security-Policy",
                "Referrer-Policy",
                "X-Content-Type-Options",
            ):
                self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- it lives ----------------------------------------------------------------------------------------


def test_agents_come_and_go_and_the_node_itself(world: World, browser: Browser) -> None:
    pair = world.pair(services=lambda origin: [{"match": "first.example", "upstream": origin.url}])
    browser.open(url_of(pair.dmz))
    browser.wait("ready", "#state")
    browser.wait("first.example/", "#services")
    assert "Nothing" in browser.text("#attention")
    late = world.agent(
        pair.dmz.registration_url(), [{"match": "late.example", "upstream": pair.origin.url}], name="late"
    )
    browser.wait("late.example/", "#services")
    assert browser.text("#tiles").count("2") >= 1
    for _ in range(3):
        assert fetch(pair.address, "/x", host="first.example").status == 200
    assert fetch(pair.address, "/x", host="nobody.example").status == 404
    browser.wait("no-service", "#failures")
    browser.wait("first.example/", "#requests")
    wait_equal(lambda: next(row[3] for row in browser.rows("requests") if row[0] == "first.example/"), "3")
    late.stop()
    browser.wait("late.example/: no agent offers it now.", "#attention")
    wait_equal(lambda: {row[0]: row[3] for row in browser.rows("services")}["late.example/"], "no agent")
    pair.dmz.process.kill()
    browser.wait("No answer from the node", "#stale")
    browser.wait("stale", "#fresh")
    assert "first.example/" in browser.text("#services"), "what was there last stays, and says that it is old"
    pair.dmz.start()
    browser.wait("live", "#fresh")
    assert browser.text("#stale") == ""
    browser.wait("1 tunnel", "#services")


def test_an_agent_says_what_keeps_it_from_its_node(world: World, browser: Browser) -> None:
    origin = world.origin()
    services = [{"match": "a.example", "upstream": [origin.url, loopback()], "health": {"interval": "200ms"}}]
    agent = world.agent(loopback(), services, start=False)
    agent.start(ready=False)
    agent.process.wait_for_line("tunnel")
    browser.open(url_of(agent))
    browser.wait("not ready", "#state")
    attention = "#attention"
    browser.wait("Not ready: no tunnel is up.", attention)
    browser.wait("0 of 1 tunnel up: connection refused.", attention)
    browser.wait("is down", attention)
    wait_equal(lambda: sorted(row[3] for row in browser.rows("upstreams")), ["down", "up"], "its upstreams")


@pytest.fixture(scope="module")
def busy(module_world: World) -> Pair:
    """Services with short and long names, several of a kind, and some requests."""
    long = "/a/path/that/somebody/chose/" + "very-long-" * 12
    pair = module_world.pair(
        services=lambda origin: [
            {"match": match, "upstream": origin.url}
            for match in (
                "b.example",
                "a.example",
                "c.example",
                f"d.example{long}",
                *(f"s{i}.example" for i in range(9)),
            )
        ],
        tunnels=2,
    )
    for host in ("a.example", "a.example", "b.example", "nobody.example"):
        fetch(pair.address, "/x", host=host)
    return pair


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(busy: Pair, browser: Browser, scheme: str) -> None:
    """Nothing has to be pushed sideways, and what is touched is large enough."""
    browser.resize(375, 812)
    browser.scheme(scheme)
    for node in (busy.dmz, busy.agent):
        browser.open(url_of(node))
        browser.wait("very-long", "#services")
        width = browser.run("return document.documentElement.scrollWidth")
        assert width <= 375, f"{node.name}: the page is {width} wide"
        small = browser.run(
            "return [...document.querySelectorAll('main button, header button, main input')]"
            ".filter(each => each.offsetParent && each.offsetHeight < 36).map(each => each.textContent)"
        )
        assert small == []
        labels = browser.run(
            "return getComputedStyle(document.querySelector('#services td'), '::before').content"
        )
        assert labels == '"Service"'
    colours = browser.run(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert contrast(*colours) > 7


def contrast(one: str, other: str) -> float:
    """Of two CSS colours, as WCAG 2 has it."""

    def light(colour: str) -> float:
        parts = [int(each) / 255 for each in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted([light(one), light(other)], reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


# --- by keyboard -------------------------------------------------------------------------------------


def press(browser: Browser, *keys: str) -> None:
    for key in keys:
        browser.driver.switch_to.active_element.send_keys(key)


def focused(browser: Browser) -> str:
    return str(browser.run("return document.activeElement.textContent.trim() || document.activeElement.id"))


def test_by_keyboard(busy: Pair, browser: Browser) -> None:
    browser.open(url_of(busy.dmz))
    browser.wait("a.example/", "#services")
    landmarks = browser.run(
        "return ['header', 'nav', 'main', 'footer', 'h1'].map(each => document.querySelectorAll(each).length)"
    )
    assert landmarks == [1, 1, 1, 1, 1]
    press(browser, Keys.TAB)
    assert focused(browser) == "Skip to the content"
    outline = browser.run(
        "const style = getComputedStyle(document.activeElement);"
        "return [style.outlineStyle, style.outlineWidth]"
    )
    assert outline == ["solid", "2px"]
    press(browser, Keys.ENTER, Keys.TAB)
    assert browser.run("return document.querySelector('main').contains(document.activeElement)")
    # Each heading of a table is a button: the rows follow, and so does what a screen reader is told.
    heading = browser.find("#services th button")
    heading.send_keys(Keys.ENTER)
    names = [row[0] for row in browser.rows("services")]
    assert names == sorted(names, reverse=True)
    assert browser.find("#services th").get_attribute("aria-sort") == "descending"
    heading.send_keys(Keys.SPACE)
    assert [row[0] for row in browser.rows("services")] == sorted(names)
    filters = browser.find("#services input")
    filters.send_keys("s7")
    assert [row[0] for row in browser.rows("services")] == ["s7.example/"]
    filters.send_keys(Keys.BACKSPACE, Keys.BACKSPACE)
    assert len(browser.rows("services")) == 13


def test_focus_and_what_is_open_stay_over_updates(busy: Pair, browser: Browser) -> None:
    browser.open(url_of(busy.dmz))
    browser.wait("and 12 more", "#tunnels")
    summary = browser.find("#tunnels summary")
    summary.send_keys(Keys.ENTER)
    browser.wait("s8.example/", "#tunnels")
    browser.run(
        "window.updates = 0; const facts = document.getElementById('facts');"
        "new MutationObserver(() => window.updates++).observe(facts, {childList: true, subtree: true})"
    )
    wait_until(lambda: browser.run("return window.updates") >= 3, "some updates")
    assert "more" in focused(browser)
    assert "s8.example/" in browser.text("#tunnels")
    browser.find("#pause").send_keys(Keys.ENTER)
    browser.wait("paused at", "#fresh")
    assert browser.find("#pause").get_attribute("aria-pressed") == "true"
    browser.find("#pause").send_keys(Keys.ENTER)
    browser.wait("live", "#fresh")


# --- it is inert -------------------------------------------------------------------------------------


def test_it_asks_nobody_else_and_its_policy_holds(busy: Pair, browser: Browser) -> None:
    at = url_of(busy.dmz)
    browser.open(at)
    browser.wait("a.example/", "#services")
    wait_until(
        lambda: (
            browser.text("#facts")
            and browser.run("return performance.getEntriesByName(new URL('status', location)).length > 2")
        )
    )
    assert browser.complaints() == []
    asked = browser.asked()
    assert {each for each in asked if not each.startswith(at)} == set()
    assert f"{at}status" in asked
    # What would be an injection, had something gone in as markup.
    tries = {
        "markup": "document.body.innerHTML = '<b>x</b>'",
        "inline": "const made = document.createElement('script'); made.text = 'window.injected = 1';"
        "document.body.append(made)",
    }
    for name, script in tries.items():
        failed = browser.run(f"try {{ {script} }} catch (error) {{ return error.name }}")
        assert failed == "TypeError", name
    assert browser.run("return window.injected === undefined")


def test_headers_of_its_files(busy: Pair) -> None:
    at = busy.dmz.admin
    index = fetch(at, "/", host=host_of(at))
    names = {word.split('"')[0] for word in index.body.decode().split('"page/')[1:]}
    assert names >= {"page.css", "main.js", "icon.svg"}
    for target in ["/", *(f"/page/{name}" for name in names)]:
        answer = fetch(at, target, host=host_of(at))
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert (
            "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        again = fetch(at, target, fields=[("If-None-Match", answer.headers["ETag"])], host=host_of(at))
        assert (again.status, again.body) == (304, b"")
    for target in (
        "/page/../admin.py",
        "/page/..%2fadmin.py",
        "/page/%2e%2e%2fadmin.py",
        "/page/",
        "/page/none.js",
    ):
        assert fetch(at, target, host=host_of(at)).status == 404


HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>\"'>&amp;\x1b]0;x\x07\u202e"


def test_hostile_names_are_text(busy: Pair, browser: Browser) -> None:
    """Every text of the status, whoever chose it: agents, users, hosts, reasons, DMZ nodes."""

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoil(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [spoil(each, key) for each in value]
        return f"{HOSTILE}{value}" if isinstance(value, str) and key != "state" else value

    def alter(status: dict[str, Any]) -> None:
        status["access_log"] = {"path": "x", "format": "json", "records": 1, "dropped": 1, "problem": "full"}
        user = {"name": "u", "tokens": 1, "certificates": 0, "passwords": 0, "tunnels": 1, "admin": "read"}
        status["users"] = [{**user, "may": ["a", "b", "c"], "max_tunnels": None, "max_streams": None}]
        status.update(spoil(status))

    with mirror(busy.dmz, alter) as at:
        browser.open(at)
        browser.wait("a.example/", "#services")
        browser.run("for (const each of document.querySelectorAll('td details')) each.open = true")
        browser.wait("<img src=x onerror=window.pwned=1>", "#failures")
        assert browser.run("return window.pwned === undefined")
        assert (
            browser.run("return document.querySelectorAll('main img, main script, header script').length")
            == 0
        )
        assert browser.complaints() == []
        assert {each for each in browser.asked() if not each.startswith(at)} == set()
        browser.resize(375, 812)
        assert browser.run("return document.documentElement.scrollWidth") <= 375


def test_thousands_of_agents_and_services(busy: Pair, browser: Browser) -> None:
    def alter(status: dict[str, Any]) -> None:
        tunnel, service = status["tunnels"][0], status["services"][0]
        status["tunnels"] = [
            {**tunnel, "agent": f"agent-{number}", "rate_in": number} for number in range(5000)
        ]
        status["services"] = [{**service, "service": f"service-{number}.example/"} for number in range(5000)]

    with mirror(busy.dmz, alter) as at:
        browser.open(at)
        browser.wait("service-49.example", "#services", 60)
        assert len(browser.rows("services")) == len(browser.rows("tunnels")) == 50
        browser.find("#tunnels .more").send_keys(Keys.ENTER)
        assert len(browser.rows("tunnels")) == 250
        browser.find("#tunnels input").send_keys("agent-4999")
        wait_equal(lambda: [row[0] for row in browser.rows("tunnels")], ["agent-4999"], "the filter")
        before = browser.text("#facts")
        wait_until(lambda: browser.text("#facts") != before, "it goes on", 60)
        assert browser.complaints() == []


# --- signing in --------------------------------------------------------------------------------------


def test_signing_in_with_a_token(world: World, browser: Browser) -> None:
    token = new_token()
    node = world.dmz(
        {
            "admin": {"listen": loopback(), "auth": "token"},
            "users": [{"name": "ops", "tokens": [token_hash(token)], "may": {"admin": "read"}}],
        }
    )
    browser.open(url_of(node))
    browser.wait("This port wants a token", "#signin")
    assert browser.run("return document.activeElement.id") == "token"
    assert browser.text("#main") == ""
    press(browser, "broker_wrong-0000000000", Keys.ENTER)
    browser.wait("The token is unknown here.", "#signin")
    press(browser, token.reveal(), Keys.ENTER)
    browser.wait("ready", "#state")
    browser.wait("ops", "#users")
    assert browser.text("#signin") == ""
    kept = browser.run(
        "return [location.href, document.cookie, localStorage.length, sessionStorage.length,"
        "document.getElementById('token').value]"
    )
    assert kept == [url_of(node), "", 0, 0, ""]
    assert not any(token.reveal() in each for each in browser.asked())
    browser.find("#signout").click()
    browser.wait("This port wants a token", "#signin")
    press(browser, token.reveal(), Keys.ENTER)
    browser.wait("ops", "#users")
    node.write(
        {
            **node.config,
            "users": [{"name": "ops", "tokens": [token_hash(new_token())], "may": {"admin": "read"}}],
        }
    )
    node.process.signal(1)
    browser.wait("The token is unknown here.", "#signin")
