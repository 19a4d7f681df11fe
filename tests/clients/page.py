"""The endpoint's page in headless Chromium, by keyboard alone: `page.py URL CHROMIUM FOLDER` prints what it shows as JSON and
keeps screenshots in FOLDER."""

import json
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

url, chromium, folder = sys.argv[1:]
problems = []


def wait(page, condition: str) -> None:
    """Poll for a condition; the page's own policy forbids playwright's way, which evaluates text within it."""
    ends = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < ends, f"waited in vain for {condition}"
        time.sleep(0.02)


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    wait(page, "document.getElementById('code').value !== ''")
    focused = [page.evaluate("document.activeElement.id")]
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#picture td.left")
    wait(page, "document.getElementById('status').textContent === ''")
    first = page.inner_text("#savings")
    page.screenshot(path=Path(folder) / "page.png", full_page=True)
    typed = page.input_value("#code")
    page.keyboard.press("Tab")
    indented = (
        page.input_value("#code") == typed + "    " and page.evaluate("document.activeElement.id") == "code"
    )
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    focused.append(page.evaluate("document.activeElement.id"))
    page.keyboard.press("Home")  # the threshold, to 0: everything leaves at the first exit point
    wait(page, "document.querySelectorAll('#picture tbody tr:last-child td.left').length === 15")
    wait(page, "document.getElementById('status').textContent === ''")
    shown = {
        "threshold": page.inner_text("#shown"),
        "savings": page.inner_text("#savings"),
        "text": page.inner_text("#text"),
        "columns": page.locator("#picture tfoot td").count(),
        "left": page.locator("#picture td.left").count(),
    }
    page.keyboard.press("Tab")
    focused.append(page.evaluate("document.activeElement.id"))
    page.keyboard.press("Control+A")
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    focused.append(page.evaluate("document.activeElement.tagName"))
    page.keyboard.press("Space")
    wait(page, "document.querySelectorAll('#picture tfoot td').length === 3")
    page.fill("#count", "")
    page.locator("#code").press("Control+Enter")
    page.wait_for_selector("#status.error")
    error = page.inner_text("#status")
    dark = browser.new_page(viewport={"width": 420, "height": 900}, color_scheme="dark")
    dark.goto(url)
    wait(dark, "document.getElementById('code').value !== ''")
    dark.keyboard.press("Control+Enter")
    dark.wait_for_selector("#picture td.left")
    dark.screenshot(path=Path(folder) / "page-dark-narrow.png", full_page=True)
    wide = dark.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    browser.close()
print(
    json.dumps(
        shown
        | {
            "indented": indented,
            "first": first,
            "focused": focused,
            "error": error,
            "overflows": wide,
            "problems": problems,
        }
    )
)
