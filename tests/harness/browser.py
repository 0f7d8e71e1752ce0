"""Chromium, driven as a person would: what a page shows, what its console says, whom it asks."""

import json
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.harness.servers import program
from tests.harness.waiting import wait_until

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server")


class Browser:
    def __init__(self, directory: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium", "chromium")
        for flag in (*FLAGS, f"--user-data-dir={directory / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(program("chromedriver", "chromium-driver")))
        self.driver.set_page_load_timeout(30)
        self.resize(1280, 900)

    def close(self) -> None:
        self.driver.quit()

    def resize(self, width: int, height: int) -> None:
        """Of what the page sees, not of the window."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url: str) -> None:
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    # --- what it shows --------------------------------------------------------------------------

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        """As a person sees it; "" where it is hidden or not there."""
        script = """
            const found = document.querySelector(arguments[0])
            return found?.checkVisibility() ? found.innerText : ''"""
        return str(self.run(script, selector))

    def rows(self, table: str) -> list[list[str]]:
        """The cells of all rows that are shown of a table, which is named by its section."""
        script = """
            const section = document.getElementById(arguments[0])
            if (!section || section.hidden) return []
            return [...section.querySelectorAll("tbody tr")].map(
                row => [...row.cells].map(cell => cell.innerText.trim()))"""
        found: list[list[str]] = self.run(script, table)
        return found

    def wait(self, words: str, selector: str = "body", deadline: float = 30) -> None:
        wait_until(
            lambda: words in self.text(selector) or None, f"{words!r} in {self.text(selector)!r}", deadline
        )

    # --- what it does ---------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the page was opened: scripts, policies, missing files."""
        found = self.driver.get_log("browser")
        return [each["message"] for each in found if each["level"] in ("SEVERE", "WARNING")]

    def asked(self) -> set[str]:
        """The URLs that were asked for since the page was opened."""
        urls = set()
        for each in self.driver.get_log("performance"):
            message = json.loads(each["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.add(str(message["params"]["request"]["url"]))
        return urls
