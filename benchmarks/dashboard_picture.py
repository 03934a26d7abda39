"""Takes the picture of the dashboard that the docs show: the coding-assistant example served, measured and looked at.

    .venv/bin/python benchmarks/dashboard_picture.py docs/images/dashboard.png --rate 3/s --seconds 70

On a machine that is busy with something else the requirement will not be held, and the picture says so.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
WIDTH, HEIGHT = 1280, 1560
SETTLE_S = 3.0
SETPOINT = (sys.executable, "-m", "setpoint")


def picture(url: str, path: Path, *, dark: bool) -> None:
    """What Chromium shows of the page at ``url`` some seconds after it was opened."""
    options = Options()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            browser.get(f"{url}/dashboard")
            time.sleep(SETTLE_S)
            browser.save_screenshot(str(path))
        finally:
            browser.quit()


def main() -> None:
    """Serve, put load on it, take the picture shortly before the load ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rate", default="3/s")
    parser.add_argument("--seconds", type=int, default=70)
    parser.add_argument("--dark", action="store_true")
    asked = parser.parse_args()
    requirement = str(files("setpoint").joinpath("examples/coding-assistant.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        serving = [*SETPOINT, "serve", requirement, "--port", "0"]
        server = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            load = ["--requirement", requirement, "--rate", asked.rate, "--duration", f"{asked.seconds}s"]
            measuring = [*SETPOINT, "measure", url, *load, "--output", f"{folder}/run"]
            measure = subprocess.Popen(measuring, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(asked.seconds)
            picture(url, asked.output, dark=asked.dark)
            measure.terminate()
            measure.wait()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
