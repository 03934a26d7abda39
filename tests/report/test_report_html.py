"""The page as text and in a real browser: offline, complete, escaped, and within the width of a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from report_synthetic_run import CONFIGS, HOSTILE_NAME, bare_report, hostile_report, synthetic_run
from selenium import webdriver
from selenium.webdriver.common.by import By

from chromium import chromium
from setpoint.record import Phase, Report
from setpoint.record.columns import SERVER_COLUMNS
from setpoint.report.charts.timeline import MOST_DOTS
from setpoint.report.html import render_html

Run = tuple[Report, pa.Table, pa.Table]
SECTIONS = ("verdict", "asked", "frontier", "distributions", "timeline", "tradeoff", "candidates", "method")
# A single measurement has nothing to compare.
OF_ONE = tuple(section for section in SECTIONS if section not in ("frontier", "tradeoff"))


@pytest.fixture(scope="module")
def run() -> Run:
    """A tune of five candidates with a burst."""
    return synthetic_run()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests of the file."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def logged(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """The browser's log of one kind since it was last read."""
    return list(browser.execute("getLog", {"type": kind})["value"])


def open_page(
    browser: webdriver.Chrome, folder: Path, page: str, *, width: int = 1280, scripts: bool = True, dark: bool = False
) -> None:
    """Load ``page`` from a file at a window width, with the logs emptied before."""
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for kind in ("browser", "performance"):
        logged(browser, kind)
    browser.get(path.as_uri())


def requested_urls(browser: webdriver.Chrome) -> list[str]:
    """Every URL the browser asked for since the page was opened."""
    messages = [entry["message"] for entry in logged(browser, "performance")]
    sent = [message for message in messages if '"Network.requestWillBeSent"' in message]
    return [found.group(1) for message in sent if (found := re.search(r'"url":"([^"]*)"', message))]


class _Outline(HTMLParser):
    """Collects what a page refers to, its ids, and tags that are not closed in order."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep ids and links; push the tag."""
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        """Pop the tag, which must be the last one opened."""
        assert self.open.pop() == tag


def outline(page: str) -> _Outline:
    """The page's outline; raises if tags are not nested."""
    parser = _Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def svgs(page: str) -> list[ElementTree.Element]:
    """Every drawing of the page as XML."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)]


def test_page_is_self_contained_and_well_formed(run: Run) -> None:
    found = outline(render_html(*run))
    assert all(link == "data:," or link.startswith("#") for link in found.links)
    assert len(set(found.ids)) == len(found.ids)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert set(SECTIONS) <= set(found.ids)
    assert found.tags.count("script") == 1


def test_every_plot_has_a_title_a_description_and_no_broken_number(run: Run) -> None:
    page = render_html(*run)
    plots = [svg for svg in svgs(page) if "plot" in (svg.get("class") or "")]
    assert len(plots) > 40
    for plot in plots:
        assert (plot.findtext("title") or "") != ""
        assert (plot.findtext("desc") or "") != ""
        for element in plot.iter():
            for name in ("d", "x", "y", "width", "height", "cx", "cy"):
                assert "nan" not in (element.get(name) or "")
                assert "inf" not in (element.get(name) or "")


def test_page_is_the_same_every_time(run: Run) -> None:
    assert render_html(*run) == render_html(*run)


def test_figures_and_reasons_are_in_the_tables(run: Run) -> None:
    page = render_html(*run)
    text = re.sub(r"<[^>]+>", " ", page)
    for name in CONFIGS:
        assert name in text
    assert "The requirement is met" in text
    assert text.count("Missed TTFT P95") >= 2
    for term in ("Goodput", "P99, 95 % interval", "unfinished", "smollm2-135m", "setpoint tune coding-assistant.yaml"):
        assert term in text


def test_losers_are_told_apart_from_the_reason_for_the_chosen_one(run: Run) -> None:
    why = "setpoint-32 was chosen: it alone meets every SLO. immediate lost: it misses TTFT. static-8 lost: it waits."
    report = run[0].model_copy(update={"why": why})
    page = render_html(report, run[1], run[2])
    assert '<p class="why">setpoint-32 was chosen: it alone meets every SLO.</p>' in page
    assert "<dd>It misses TTFT.</dd>" in page
    assert "<dd>It waits.</dd>" in page


def test_long_runs_are_thinned_and_say_so(run: Run) -> None:
    report, requests, _ = synthetic_run(names=("continuous-32",))
    many = pa.concat_tables([requests] * 20)
    page = render_html(report, many, None)
    assert f"only {MOST_DOTS:,} of them" in page
    assert max(len(path.split("h0")) for path in re.findall(r'd="(M[^"]*h0)"', page)) <= MOST_DOTS + 1
    assert "At most 400 points a curve" in page
    assert len(page) < 500_000


def test_page_of_five_candidates_stays_small(run: Run) -> None:
    assert len(render_html(*run).encode()) < 1_500_000


def test_hostile_texts_are_escaped() -> None:
    page = render_html(*hostile_report())
    found = outline(page)
    assert found.tags.count("script") == 1
    assert "<script>document" not in page
    assert "\x1b" not in page
    assert "\x07" not in page
    for svg in svgs(page):
        assert all("owned" not in element.tag for element in svg.iter())


@pytest.mark.parametrize("candidates", [0, 1, 3])
def test_nothing_known_still_renders(candidates: int) -> None:
    found = outline(render_html(*bare_report(candidates)))
    assert set(OF_ONE if candidates == 1 else SECTIONS) <= set(found.ids)


def test_one_candidate_without_steps_and_without_requirement() -> None:
    report, requests, _ = synthetic_run(names=("continuous-8",))
    page = render_html(report.model_copy(update={"requirement": None}), requests, None)
    assert "No requirement: this run was measured without limits." in page
    assert "steps.parquet" not in page


def measured_run() -> tuple[Report, pa.Table, None, pa.Table]:
    """One measurement of somebody else's server: no steps, but metrics, an account of the client, claims and a load."""
    report, requests, _ = synthetic_run(names=("continuous-8",))
    rows = [
        {"candidate": "continuous-8", "time_s": float(at), "name": name, "value": value}
        for at in range(0, 120, 2)
        for name, value in (("running", 4.0 + at % 5), ("waiting", at % 7), ("kv_usage", 0.3 + at / 400), ("power_w", 250.0))
    ]
    account = {
        "workers": 2,
        "send_lag_s": {"p50": 0.0001, "p99": 0.002, "max": 0.004},
        "loop_lag_s": {"p50": 0.0001, "p99": 0.001, "max": 0.003},
        "cpu": {"busiest_core_share": 0.31, "machine_share": 0.6, "output_tokens_per_cpu_s": 51_000.0},
        "errors": [
            {"of": "ttft", "limit_s": 0.5, "limit_stated": True, "error_p99_s": 0.003, "error_share_of_limit": 0.006}
        ],
        "arrivals": [
            {
                "phase": "sustained", "faithful": True, "lag_p99_s": 0.002,
                "planned": {"rate_rps": 2.2, "gap_cv": 1.0, "dispersion": 1.1},
                "realised": {"rate_rps": 2.2, "gap_cv": 1.01, "dispersion": 1.1},
            }
        ],
        "warnings": [],
    }  # fmt: skip
    sustained = {"running_mean": 5.0, "running_peak": 8.0, "rejected": 3.0}
    server = {"kind": "vllm", "scrapes": 60, "phases": {"sustained": sustained}}
    candidate = report.candidates[0]
    checks = [candidate.slo.checks[0].model_copy(update={"asserted": "ttft_p95<500ms"}), *candidate.slo.checks[1:]]
    slo = candidate.slo.model_copy(update={"checks": checks})
    candidate = candidate.model_copy(update={"client": account, "server": server, "slo": slo})
    changed = report.model_copy(update={"candidates": [candidate], "load": {"max_in_flight": 64, "retries": 2}})
    return changed, requests, None, pa.Table.from_pylist(rows, schema=SERVER_COLUMNS)


def test_a_measurement_shows_all_its_distributions_its_client_and_its_server() -> None:
    page = render_html(*measured_run())
    found = outline(page)
    assert set(OF_ONE) <= set(found.ids)
    assert not {"frontier", "tradeoff"} & set(found.ids)
    for metric in ("TTFT", "ITL", "E2E", "Largest gap"):
        assert f"Cumulative distribution of {metric}, sustained phase" in page
    text = re.sub(r"<[^>]+>", " ", page)
    for words in (
        "How they ended, requests in", "arrivals", "completions", "KV cache in use", "GPU power, W",
        "Gaps between tokens (ITL)", "The load generator itself", "faithful", "2 processes", "What the server said of itself",
        "vllm, read 60 times",
        "64 in flight", "ttft_p95&lt;500ms", "server.parquet",
    ):  # fmt: skip
        assert words in text, words
    for plot in (svg for svg in svgs(page) if "plot" in (svg.get("class") or "")):
        assert all("nan" not in (element.get("d") or "") for element in plot.iter())


def test_a_search_for_the_knee_says_where_it_is() -> None:
    report, requests, steps = synthetic_run(names=("continuous-8", "continuous-32"))
    knee = {"rate_rps": 31.6, "words": "The knee is at 31.6 requests/s.", "probes": [], "curve": [], "criteria": []}
    page = render_html(report.model_copy(update={"kind": "measure", "knee": knee}), requests, steps)
    assert "The knee is at 31.6 requests/s" in page


def test_requests_that_were_never_answered() -> None:
    report, requests, steps = synthetic_run(names=("setpoint-32",))
    nulls = pa.nulls(requests.num_rows, pa.float64())
    for name in ("sent_s", "ended_s", "first_token_s", "last_token_s", "ttft_s", "tpot_s", "e2e_s"):
        requests = requests.set_column(requests.column_names.index(name), name, nulls)
    lists = pa.nulls(requests.num_rows, pa.list_(pa.float64()))
    requests = requests.set_column(requests.column_names.index("token_times_s"), "token_times_s", lists)
    found = outline(render_html(report, requests, steps))
    assert set(OF_ONE) <= set(found.ids)


def test_not_streamed_answers_are_shown_by_e2e() -> None:
    report, requests, steps = synthetic_run(names=("continuous-8", "static-8"))
    assert report.requirement is not None
    requirement = report.requirement | {
        "profile": report.requirement["profile"] | {"streaming": False},
        "slo": {"latency": [{"metric": "e2e", "percentile": 99, "limit_s": 6.0}]},
        "slo_burst": {},
    }
    page = render_html(report.model_copy(update={"requirement": requirement}), requests, steps)
    assert "Cumulative distribution of E2E, sustained phase" in page
    assert "Cumulative distribution of ITL" not in page
    assert "E2E of each request" in page
    assert "not streamed" in page


def test_draft_tokens_over_time_are_drawn_where_a_step_had_some() -> None:
    report, requests, steps = synthetic_run(names=("continuous-8",))
    assert "Draft tokens a step" not in render_html(report, requests, steps)
    drafted = [8 * (number % 2) for number in range(steps.num_rows)]
    for name, values in (("drafts", [each // 4 for each in drafted]), ("drafted", drafted)):
        steps = steps.set_column(steps.column_names.index(name), name, pa.array(values, pa.int32()))
    page = render_html(report, requests, steps)
    assert page.count(">Draft tokens a step<") == 2, "in the wide drawing and in the narrow one"
    assert len(re.findall(r'data-y="linear 0 8\.96 [\d.]+ [\d.]+ tokens"', page)) == 2, "up to eight, and a little room"
    assert ">in all<" in page
    for plot in (svg for svg in svgs(page) if "plot" in (svg.get("class") or "")):
        assert all("nan" not in (element.get("d") or "") for element in plot.iter())


def test_curves_agree_with_the_data(run: Run) -> None:
    """The first and last point of a curve read back through the axis are the least and about the greatest sample."""
    report, requests, steps = synthetic_run(names=("continuous-8",))
    page = render_html(report, requests, steps)
    drawn = re.search(r"<svg viewBox[^>]*cdf-ttft-sustained-title.*?</svg>", page, flags=re.DOTALL)
    assert drawn is not None
    panel = re.search(r'data-x="log (\S+) (\S+) (\S+) (\S+) s"', drawn.group())
    curve = re.search(r'<path d="M([\d.]+) [^"]*" class="line', drawn.group())
    assert panel is not None
    assert curve is not None
    low, high, start, end = map(float, panel.groups())
    read = low * (high / low) ** ((float(curve.group(1)) - start) / (end - start))
    rows = requests.filter(pa.compute.equal(requests.column("phase"), str(Phase.SUSTAINED)))
    assert read == pytest.approx(float(np.nanmin(rows.column("ttft_s").to_numpy())), rel=0.02)


@pytest.mark.browser
class TestBrowser:
    """What Chromium makes of it."""

    def test_loads_offline_without_errors_or_requests(self, browser: webdriver.Chrome, run: Run, tmp_path: Path) -> None:
        open_page(browser, tmp_path, render_html(*run))
        assert logged(browser, "browser") == []
        assert [url for url in requested_urls(browser) if not url.startswith(("file:", "data:"))] == []
        for section in SECTIONS:
            assert browser.find_element(By.ID, section).is_displayed()
        assert "setpoint-32" in browser.find_element(By.ID, "verdict").text
        assert browser.find_element(By.CSS_SELECTOR, "svg.wide").is_displayed()

    @pytest.mark.parametrize("width", [360, 420, 768, 1280])
    def test_never_scrolls_sideways(self, browser: webdriver.Chrome, run: Run, tmp_path: Path, width: int) -> None:
        for index, page in enumerate((render_html(*run), render_html(*hostile_report()))):
            folder = tmp_path / str(index)
            folder.mkdir()
            open_page(browser, folder, page, width=width)
            browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize("width", [360, 1280])
    def test_a_measurement_works_offline_in_both_schemes(
        self, browser: webdriver.Chrome, tmp_path: Path, width: int, dark: bool
    ) -> None:
        open_page(browser, tmp_path, render_html(*measured_run()), width=width, dark=dark)
        assert logged(browser, "browser") == []
        assert [url for url in requested_urls(browser) if not url.startswith(("file:", "data:"))] == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for section in OF_ONE:
            assert browser.find_element(By.ID, section).is_displayed()
        assert browser.find_element(By.ID, "client").is_displayed()
        curves = browser.find_elements(By.CSS_SELECTOR, f"#timeline svg.{'wide' if width > 760 else 'narrow'} .line.p95")
        assert curves
        assert all(curve.is_displayed() for curve in curves)

    def test_phone_gets_the_narrow_timeline(self, browser: webdriver.Chrome, run: Run, tmp_path: Path) -> None:
        open_page(browser, tmp_path, render_html(*run), width=420)
        assert not browser.find_element(By.CSS_SELECTOR, "svg.wide").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, "svg.narrow").is_displayed()

    def test_complete_with_scripts_off(self, browser: webdriver.Chrome, run: Run, tmp_path: Path) -> None:
        open_page(browser, tmp_path, render_html(*run), scripts=False)
        tree = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 1})
        for selector in ("#frontier svg.half .mark", "#timeline svg.wide .dots", "#candidates tbody.chosen"):
            found = browser.execute_cdp_cmd("DOM.querySelector", {"nodeId": tree["root"]["nodeId"], "selector": selector})
            assert browser.execute_cdp_cmd("DOM.getBoxModel", {"nodeId": found["nodeId"]})["model"]["width"] > 0

    def test_hostile_names_run_nothing(self, browser: webdriver.Chrome, tmp_path: Path) -> None:
        open_page(browser, tmp_path, render_html(*hostile_report()))
        assert "owned" not in browser.title.replace(HOSTILE_NAME[:30], "")[:6]
        assert browser.execute_script("return document.scripts.length") == 1
        assert logged(browser, "browser") == []
        assert "<script>" in browser.find_element(By.CSS_SELECTOR, "h1").text

    def test_dark_and_light_have_contrast(self, browser: webdriver.Chrome, run: Run, tmp_path: Path) -> None:
        """WCAG AA: 4.5 : 1 for text of every kind on the page, in both schemes."""
        script = """
            const luminance = (color) => {
              const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((c) => {
                const s = c / 255;
                return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
              });
              return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const paper = luminance(getComputedStyle(document.body).backgroundColor);
            const raised = luminance(getComputedStyle(document.querySelector('.banner')).backgroundColor);
            const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            return [...document.querySelectorAll(arguments[0])].map((element) => {
              const style = getComputedStyle(element);
              const ink = luminance(element instanceof SVGElement ? style.fill : style.color);
              return ratio(ink, element.closest('.banner, tbody.chosen') ? raised : paper);
            });
        """
        page = render_html(*run)
        for dark in (False, True):
            open_page(browser, tmp_path, page, dark=dark)
            ratios = browser.execute_script(script, "p, h1, h2, h3, dt, dd, th, td, a, .verdict, .tag, svg text")
            assert len(ratios) > 200
            assert min(ratios) >= 4.5

    def test_pointer_shows_the_value(self, browser: webdriver.Chrome, run: Run, tmp_path: Path) -> None:
        open_page(browser, tmp_path, render_html(*run))
        text = browser.execute_script(
            """
            const mark = document.querySelector('#frontier svg.half .mark.chosen');
            mark.scrollIntoView({ block: 'center' });
            const box = mark.getBoundingClientRect();
            const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
            mark.dispatchEvent(new PointerEvent('pointermove', at));
            return document.querySelector('.tip').textContent;
            """
        )
        assert text.startswith("setpoint-32\nTTFT P95")
        dot = browser.execute_script(
            """
            const dots = document.querySelector('#timeline svg.wide .dots.c-ok');
            dots.scrollIntoView({ block: 'center' });
            const [x, y] = dots.getAttribute('d').match(/M([\\d.]+) ([\\d.]+)/).slice(1).map(Number);
            const at = new DOMPoint(x, y).matrixTransform(dots.ownerSVGElement.getScreenCTM());
            dots.ownerSVGElement.dispatchEvent(
              new PointerEvent('pointermove', { clientX: at.x, clientY: at.y, bubbles: true }));
            return document.querySelector('.tip').textContent;
            """
        )
        assert re.fullmatch(r"ok\n[\d.]+ m?s at [\d.]+ m?s", dot)
