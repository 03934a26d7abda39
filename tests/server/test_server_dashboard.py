"""The dashboard in a real browser, over a real server with the demo model under a small load."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from scripted_engine import ScriptedEngine
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from serving import serving

from chromium import chromium
from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import ResolvedModel
from setpoint.engine.request import Rejected
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import Reject
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import KvView, RequestLimits, RequestView, SystemView
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer
from setpoint.server.dashboard import page
from setpoint.server.live.checks import ITL, TTFT, LatencyCheck, Objectives
from setpoint.server.live.words import _WORDS, in_words

MODEL = "smollm2-135m"
WAIT_S = 60.0
MOST_TURNS = 2000
WANTED = Objectives("small-chat", (LatencyCheck(TTFT, 95.0, 30.0), LatencyCheck(ITL, 99.0, 5.0)), goodput_fraction_min=0.5)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests of the file."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@dataclass(frozen=True)
class Served:
    url: str
    key: str


@pytest.fixture(scope="module")
def served(demo_model: ResolvedModel) -> Iterator[Served]:
    """One request at a time and one waiting, so that a handful of clients is an overload."""
    config = ServingConfig(mode=BatchingMode.IMMEDIATE, max_waiting=1, token_budget=256, kv_cache_tokens=2048)
    engine = embedded_engine(demo_model, config)
    app = create_app(
        engine,
        api_keys=["open-sesame"],
        default_limits=RequestLimits(ttft_s=30.0, itl_s=5.0),
        objectives=WANTED,
        about=config.model_dump(mode="json"),
    )
    with BackgroundServer(app) as server:
        yield Served(server.url, "open-sesame")


def logged(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    return list(browser.execute("getLog", {"type": kind})["value"])


def requested(browser: webdriver.Chrome) -> set[str]:
    """Every URL asked for since last read, without queries."""
    messages = [json.loads(entry["message"])["message"] for entry in logged(browser, "performance")]
    sent = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return {url.partition("?")[0] for url in sent if not url.startswith("data:")}


def open_at(browser: webdriver.Chrome, url: str, *, width: int = 1280, dark: bool = False) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for kind in ("browser", "performance"):
        logged(browser, kind)
    browser.get(f"{url}/dashboard")


def until(browser: webdriver.Chrome, true: Callable[[], object]) -> None:
    """Wait until ``true()`` gives something; the page polls once a second."""
    WebDriverWait(browser, WAIT_S, poll_frequency=0.1).until(lambda _: true())


def text(browser: webdriver.Chrome, selector: str) -> str:
    """What an element says, read in one go: the page replaces elements all the time."""
    script = "return document.querySelector(arguments[0])?.textContent ?? ''"
    return str(browser.execute_script(script, selector))


def tile(browser: webdriver.Chrome, name: str) -> str:
    script = """return [...document.querySelectorAll('#tiles > div')]
        .find((each) => each.firstChild.textContent === arguments[0])?.children[1].textContent ?? ''"""
    return str(browser.execute_script(script, name))


def open_live(browser: webdriver.Chrome, served: Served, **look: Any) -> None:
    """The page with its figures, the key given if it is asked for."""
    open_at(browser, served.url, **look)
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#live:not([hidden]), #key-form:not([hidden])"))
    if browser.find_element(By.ID, "key-form").is_displayed():
        enter(browser, served.key)
    until(browser, lambda: browser.find_element(By.ID, "live").is_displayed())


def enter(browser: webdriver.Chrome, key: str) -> None:
    browser.find_element(By.ID, "key").send_keys(key)
    browser.find_element(By.CSS_SELECTOR, "#key-form button").click()


@contextmanager
def load(served: Served, clients: int) -> Iterator[None]:
    """``clients`` ask one after the other, each as often as it can, while the block runs (at most ``MOST_TURNS`` times)."""
    enough = threading.Event()

    def one(number: int) -> None:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0, timeout=WAIT_S) as client:
            for turn in range(MOST_TURNS):
                if enough.is_set():
                    return
                try:
                    stream = client.completions.create(
                        model=MODEL, prompt=f"Tale {turn} of {number}:", max_tokens=12, stream=True, temperature=0
                    )
                    list(stream)
                except openai.InternalServerError:
                    enough.wait(0.05)  # a client that asks again at once

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(one, number) for number in range(clients)]
        try:
            yield
        finally:
            enough.set()
        for each in asking:
            each.result()


@pytest.mark.model
@pytest.mark.browser
class TestBrowser:
    """What Chromium makes of it."""

    def test_asks_for_the_key_and_keeps_it_for_the_tab(self, browser: webdriver.Chrome, served: Served) -> None:
        open_at(browser, served.url)
        browser.execute_script("sessionStorage.clear()")
        browser.refresh()
        until(browser, lambda: browser.find_element(By.ID, "key-form").is_displayed())
        assert not browser.find_element(By.ID, "live").is_displayed()
        assert logged(browser, "browser") == []
        enter(browser, "wrong")
        until(browser, lambda: "does not open" in text(browser, "#key-note"))
        assert browser.execute_script("return sessionStorage.getItem('setpoint-key')") is None
        logged(browser, "browser")  # the browser notes the 401 itself
        enter(browser, served.key)
        until(browser, lambda: browser.find_element(By.ID, "live").is_displayed())
        assert text(browser, "#title") == "small-chat"
        browser.refresh()
        until(browser, lambda: browser.find_element(By.ID, "live").is_displayed())
        assert browser.execute_script("return localStorage.length + document.cookie.length") == 0
        assert logged(browser, "browser") == []

    def test_figures_move_under_load_and_nothing_leaves_the_origin(self, browser: webdriver.Chrome, served: Served) -> None:
        open_live(browser, served)
        with load(served, 1):
            until(browser, lambda: text(browser, "#headline") == "The requirement is held")
            until(browser, lambda: tile(browser, "Goodput of offered") == "100 %")
            curve = "return document.querySelector('#chart-tokens .line').getAttribute('d')"
            before = browser.execute_script(curve)
            until(browser, lambda: browser.execute_script(curve) != before)
        assert re.fullmatch(r"TTFT P95held[\d.]+ m?slimit ≤ 30 s.* within, 95 % needed", text(browser, "#checks li"))
        assert tile(browser, "Output") not in ("", "–", "0/s")
        assert tile(browser, "Prediction error").endswith("%")
        assert tile(browser, "Step-time model") == "measured"
        assert "immediate" in text(browser, "#config")
        assert requested(browser) == {f"{served.url}/dashboard", f"{served.url}/setpoint/live"}
        assert logged(browser, "browser") == []

    def test_overload_shows_who_was_turned_away_and_why(self, browser: webdriver.Chrome, served: Served) -> None:
        open_live(browser, served)
        with load(served, 6):
            until(browser, lambda: "The queue is full: 1 wait, 1 may" in text(browser, "#refusals"))
            until(browser, lambda: tile(browser, "Shed") not in ("", "–", "0 %"))
            until(browser, lambda: "One request at a time" in text(browser, "#steps"))
        assert re.search(r"Shed: queue full\d", text(browser, "#counts"))
        assert re.search(r"in [\d.]+ m?s", text(browser, "#refusals tbody td.num"))
        assert logged(browser, "browser") == []

    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("width", [360, 768, 1280])
    def test_fits_and_is_readable(self, browser: webdriver.Chrome, served: Served, width: int, dark: bool) -> None:
        """No sideways scrolling, and WCAG AA contrast (4.5 : 1) for every text, in both schemes."""
        open_live(browser, served, width=width, dark=dark)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        script = """
            const luminance = (color) => {
              const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((c) => {
                const s = c / 255;
                return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
              });
              return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const of = (element) => luminance(getComputedStyle(element).backgroundColor);
            const [paper, raised] = [of(document.body), of(document.querySelector('.banner'))];
            const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            return [...document.querySelectorAll('p, h1, h2, h3, dt, dd, th, td, b, span, svg text')]
              .filter((element) => element.textContent.trim() && element.getClientRects().length)
              .map((element) => {
                const style = getComputedStyle(element);
                const ink = luminance(element instanceof SVGElement ? style.fill : style.color);
                return ratio(ink, element.closest('.banner') ? raised : paper);
              });
        """
        ratios = browser.execute_script(script)
        assert len(ratios) > 60
        assert min(ratios) >= 4.5

    def test_hostile_names_stay_text(self, browser: webdriver.Chrome) -> None:
        engine = ScriptedEngine(auto=False)
        engine.refuse = Rejected("<img/src=x/onerror=alert(1)> full", 1.0)
        wanted = Objectives("<script>document.title='owned'</script>")
        with serving(engine, objectives=wanted, about={"<b>mode": "</dl><script>document.title='owned'</script>"}) as one:
            name = "<img/src=/owned/onerror=document.title='owned'>"
            one.ask("POST", "/v1/completions", {"prompt": "x"}, {"x-request-id": name})
            open_at(browser, one.url)
            until(browser, lambda: name in text(browser, "#refusals"))
            assert "<img/src=x" in text(browser, "#refusals")
            assert "</dl><script>" in text(browser, "#config")
            assert browser.execute_script("return document.scripts.length") == 1
            assert browser.execute_script("return document.querySelectorAll('img').length") == 0
            assert not browser.title.startswith("owned")
            assert logged(browser, "browser") == []


def test_the_page_is_open_and_its_data_is_not() -> None:
    with serving(api_keys=["k"]) as one:
        reply = one.ask("GET", "/dashboard")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert 'data-key-needed="yes"' in reply.raw.decode()
        assert "echo" not in reply.raw.decode(), "the page must not tell the model"
        assert one.ask("GET", "/setpoint/live").status == 401
        assert one.ask("GET", "/setpoint/live", headers={"authorization": "Bearer k"}).status == 200
    with serving() as one:
        assert 'data-key-needed="no"' in one.ask("GET", "/dashboard").raw.decode()
        assert one.ask("GET", "/setpoint/live").json["model"] == "echo"
        assert one.ask("GET", "/setpoint/live?since=-1").error["param"] == "since"


def test_the_page_refers_to_nothing_outside_and_its_policy_allows_nothing() -> None:
    html, policy = page(key_needed=False)
    namespace = "http://www.w3.org/2000/svg"
    assert re.findall(r"(?:https?:)?//[\w.]+", html.replace(namespace, "")) == []
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["data:,"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert policy.count("sha256-") == 2
    assert "innerHTML" not in html
    assert len(html) < 60_000


@pytest.mark.parametrize("code", sorted(_WORDS))
def test_every_reason_known_has_words(code: str) -> None:
    operands = "ttft_s=2.1 ttft_limit_s=2 e2e_s=2.1 e2e_limit_s=2 itl_s=0.07 itl_limit_s=0.06 others_ttft_s=0.4"
    operands += " others_ttft_most_s=0.3 first_token_in_s=0.1 end_in_s=3 due_in_s=1 slack_s=0.03"
    counts = "waiting=3 max_waiting=4 budget=64 decodes=2 batch_size=8 members=8"
    words = in_words(f"{code} {operands} {counts}")
    assert words[0].isupper()
    assert "{" not in words
    assert "=" not in words


def test_what_the_policy_says_is_put_into_words() -> None:
    """Seen: the words asked for operands that admission does not give, and the page showed codes."""
    policy = SetpointPolicy(max_running=8, token_budget=512, prefill_floor_tokens=16, max_waiting=100, model=StepTimeModel())
    queue = SystemView(0.0, 50, 10_000_000, 4, 0, 0, KvView(blocks=1000, free_blocks=900, block_tokens=32))
    for limits, begins in (
        (RequestLimits(ttft_s=0.1), "The first token would come after"),
        (RequestLimits(e2e_s=0.1), "The answer would take"),
    ):
        verdict = policy.admit(RequestView(1, 0.0, 0.0, 50, 50, 20, streaming=limits.e2e_s is None, limits=limits), queue)
        assert isinstance(verdict, Reject)
        assert in_words(str(verdict.reason)).startswith(begins)


def test_an_unknown_reason_is_shown_as_it_is_and_cut() -> None:
    assert in_words("made_up a=1") == "made_up a=1"
    assert in_words("ttft_would_be") == "ttft_would_be"
    assert len(in_words("x" * 1000)) == 256
