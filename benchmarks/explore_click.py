"""Use every control of `stylegan-plugins explore` in headless Chromium, and check that each has an effect.

    pip install selenium                      # and a Chromium with its chromedriver
    stylegan-plugins explore RUN --port=7860 &
    python benchmarks/explore_click.py http://127.0.0.1:7860 FOLDER [PICTURE]

Writes screenshots of 1280 and 390 pixels to FOLDER. PICTURE is uploaded where a run with disp takes one. Ends with an
AssertionError if a control has no effect, the page is wider than the window, asks another machine for anything, or
logs an error."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 90  # seconds


class Page:
    """A page in a browser."""

    def __init__(self, url: str, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = shutil.which("chromedriver")
        self.browser = webdriver.Chrome(options, webdriver.ChromeService(driver) if driver else None)
        self.url, self.folder = url, folder

    def find(self, selector: str) -> list[WebElement]:
        return [found for found in self.browser.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def sources(self, selector: str) -> list[str]:
        """Return the pictures that are shown, by their addresses."""
        shown = "[...document.querySelectorAll(arguments[0])].filter(i => i.complete && i.naturalWidth)"
        read = f"return {shown}.map(i => i.src)"
        return self.browser.execute_script(read, selector)

    def wait(self, what: str, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: nothing came of it"
            time.sleep(0.1)
        print(f"{what}: works", flush=True)

    def write(self, selector: str, text: str) -> None:
        field = self.find(selector)[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.TAB)

    def click(self, selector: str) -> None:
        button = self.find(selector)[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def changes(self, what: str, action: Callable[[], None]) -> None:
        """Check that an action changes the sample."""
        before = self.sources("#sample img")
        action()
        self.wait(what, lambda: (now := self.sources("#sample img")) and now != before)

    def screenshot(self, width: int, name: str) -> None:
        self.browser.set_window_size(width, 900)
        time.sleep(1)
        inner, outer = self.browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert inner <= outer, f"the page has {inner} pixels in a window of {outer}"
        metrics = self.browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": metrics["height"], "scale": 1}
        shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        (self.folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def elsewhere(self) -> list[str]:
        """Return addresses of other machines that were asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith((self.url, "data:", "blob:", "chrome"))]


def main(url: str, folder: Path, picture: str | None = None) -> None:
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    page = Page(url, folder)
    emulate = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulate)
    page.browser.get(url)
    page.wait("first sample", lambda: page.sources("#sample img"))
    page.changes("seed", lambda: page.write("#seed input", "5"))
    page.changes("random seed", lambda: page.click("#random"))
    page.changes("truncation", lambda: page.write("#psi input[type=number]", "1"))
    if page.find("#class input"):
        page.changes("class", lambda: choose_class(page))
    for k in range(1, 7):
        page.changes(f"direction {k}", lambda k=k: page.write(f"#direction{k} input[type=number]", "2"))
    page.changes("first layer", lambda: page.write("#first input[type=number]", "2"))
    page.changes("last layer", lambda: page.write("#last input[type=number]", "3"))
    page.changes("reset directions", lambda: page.click("#reset"))
    if page.find("#like") and picture:
        upload = page.browser.find_element(By.CSS_SELECTOR, "#like input[type=file]")
        page.changes("like", lambda: upload.send_keys(str(Path(picture).resolve())))
    for count in (1, 2, 3):
        page.click("#keep")
        page.wait(
            f"keep {count}",
            lambda count=count: len(page.sources("#kept .grid-container img, #kept .thumbnail-item img")) >= count,
        )
        page.changes("next seed", lambda count=count: page.write("#seed input", str(10 + count)))
    page.write("#frames input[type=number]", "4")
    page.click("#walk")
    page.wait("interpolation", lambda: page.sources("#animation img"))
    page.wait("its files", lambda: page.find("#files a"))
    first = page.sources("#animation img")
    page.click("#loop input")
    page.click("#walk")
    page.wait("without the way back", lambda: (now := page.sources("#animation img")) and now != first)
    page.click("#look")
    page.wait("nearest training images", lambda: len(page.sources("#nearest img")) >= 4)
    page.click("#download")
    page.wait("download", lambda: list(folder.glob("seed*.png")))
    for width in (1280, 390):
        emulate = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulate)
        page.screenshot(width, f"explore-{width}")
    page.click("#clear")
    page.wait("remove all", lambda: not page.sources("#kept img"))
    page.click("#walk")
    page.wait(
        "an error is told",
        lambda: any("Keep 2 or more" in found.text for found in page.find(".toast-body, .toast-wrap")),
    )
    assert not page.elsewhere(), page.elsewhere()
    faults = [entry["message"] for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not faults, faults
    page.browser.quit()
    print("All controls work; nothing was asked of another machine.")


def choose_class(page: Page) -> None:
    """Choose the last class."""
    page.click("#class input")
    page.wait("classes", lambda: len(page.find("[role=option]")) > 1)
    page.find("[role=option]")[-1].click()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
