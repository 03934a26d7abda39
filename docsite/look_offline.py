"""Opens a built site from its folder in a headless Chromium: does it load anything from elsewhere, and does search find?

``python docsite/look_offline.py site`` needs the extra ``dev`` and a Chromium with its driver.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from chromium import chromium

SEARCHED = "goodput"
LONGEST_S = 20.0


def main(site: Path) -> int:
    """0 if every page opens, nothing comes from elsewhere, and search finds pages."""
    # 404.html is for servers: its links begin at their root.
    pages = sorted(page for page in site.resolve().rglob("*.html") if page.name != "404.html")
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        driver: Any = browser
        for page in pages:
            driver.get(page.as_uri())
        found = search(driver, site.resolve() / "index.html")
        remote = sorted({url for url in requested(driver) if url.startswith(("http:", "https:", "ws:"))})
        errors = [each["message"] for each in driver.get_log("browser") if each["level"] == "SEVERE"]
    print("\n".join([*remote, *errors, f"{len(pages)} pages, {len(remote)} requests to elsewhere, {found} pages found"]))
    return 0 if pages and found and not remote and not errors else 1


def search(driver: Any, page: Path) -> int:
    """How many pages the site's search shows for ``SEARCHED``."""
    driver.get(page.as_uri())
    field = driver.find_element(By.CSS_SELECTOR, "input.md-search__input")
    driver.execute_script("arguments[0].focus()", field)
    field.send_keys(SEARCHED)
    until_s = time.monotonic() + LONGEST_S
    while time.monotonic() < until_s:
        found = driver.find_elements(By.CSS_SELECTOR, ".md-search-result__item")
        if found:
            return len(found)
        time.sleep(0.1)
    return 0


def requested(driver: Any) -> list[str]:
    """Every address that was asked for."""
    entries = [json.loads(each["message"])["message"] for each in driver.get_log("performance")]
    return [each["params"]["request"]["url"] for each in entries if each["method"] == "Network.requestWillBeSent"]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
