"""Debian's Chromium, headless, and what is asked of a page in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

from tests.support.apt import installed
from tests.support.commanding import until

__all__ = ["Keys", "Page", "browsing"]

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
WIDE, NARROW = (1440, 900), (400, 800)
# Chromium itself tells of every attempt to reach a gateway that is gone, and of one that asks for its token.
EXPECTED = ("WebSocket connection to", "/page/session - Failed to load resource")


class Page:
    """The page in one browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._origins: set[str] = set()

    def open(self, url: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
        """Show the page anew, on a screen of that size, and wait until it has series."""
        self.enter(url, size, dark=dark)
        until(lambda: self.run("return globalThis.candleshm?.board.rows.length > 0"))

    def enter(self, url: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
        """Show the page anew, on a screen of that size, whatever it then shows."""
        self._origins.add("/".join(url.split("/")[:3]))
        width, height = size
        self.look(dark=dark)
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get("about:blank")
        self.driver.get(url)

    def look(self, *, dark: bool) -> None:
        """Switch to the dark theme or the light one."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def waits(self, condition: str, *arguments: object) -> None:
        """Wait until an expression of JavaScript is true."""
        until(lambda: self.run(f"return {condition}", *arguments))

    def text(self, selector: str) -> str:
        """Return the text of an element as it is shown."""
        shown: str = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return shown

    def click(self, selector: str) -> None:
        """Click on an element, as a mouse does."""
        self.driver.find_element("css selector", selector).click()

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def cells(self, symbol: str) -> list[str]:
        """Return the cells of a series' row, empty while it is not on the screen."""
        shown: list[str] = self.run(
            """return [...document.querySelectorAll('#grid tbody tr:not(.spacer)')]
              .filter(row => row.cells[0].textContent === arguments[0])
              .flatMap(row => [...row.cells].map(cell => cell.textContent))""",
            symbol,
        )
        return shown

    def symbols(self) -> list[str]:
        """Return the symbols of the rows that the document has."""
        shown: list[str] = self.run(
            "return [...document.querySelectorAll('#grid tbody tr:not(.spacer)')].map(row => row.cells[0].textContent)"
        )
        return shown

    def candles(self) -> dict[str, Any]:
        """Return what the chart draws: key, rows, absent."""
        drawn: dict[str, Any] = self.run("return candleshm.chart")
        return drawn

    def shows(self, name: str, symbol: str) -> None:
        """Wait until the chart draws a series."""
        until(lambda: self.candles()["key"] == f"{name} {symbol}")

    def save(self, name: str, folder: Path) -> None:
        """Keep a picture: in CANDLESHM_SCREENSHOTS where that is set, else in a folder of the test."""
        folder = Path(os.environ.get("CANDLESHM_SCREENSHOTS") or folder)
        folder.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(folder / f"{name}.png"))

    def complaints(self) -> list[str]:
        """Return what the console has that was not expected, since the last call."""
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]  # type: ignore[no-untyped-call]
        return [message for message in found if not any(part in message for part in EXPECTED)]

    def strangers(self) -> list[str]:
        """Return the URLs requested at other origins than those of the pages that were opened, since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call]
        urls = [
            event["params"].get("request", event["params"])["url"]
            for event in events
            if event["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
        ]
        own = [*self._origins, *(origin.replace("http", "ws", 1) for origin in self._origins)]
        self._origins.clear()
        return [url for url in urls if not url.startswith(("data:", "about:", *(f"{origin}/" for origin in own)))]

    def leave(self) -> None:
        """Show nothing any more."""
        self.driver.get("about:blank")


@contextmanager
def browsing() -> Iterator[Page]:
    """Start a browser, and end it."""
    chromium, driver = installed(PROGRAMS)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Page(browser)
    finally:
        browser.quit()
