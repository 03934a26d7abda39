"""The headless Chromium that looks at pages, for every test that has one.

Without Chromium and its driver such a test is skipped, unless ``SETPOINT_BROWSER=required`` is set, as `.ci/run` does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
)  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """One Chromium with an empty ``profile``, its network requests and console messages recorded."""
    browser, driver_program = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (browser and driver_program) and os.environ.get("SETPOINT_BROWSER") != "required":
        pytest.skip("chromium and chromedriver are not installed; .ci/run installs them")
    options = Options()
    options.binary_location = browser or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()
