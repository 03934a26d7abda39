"""Batches through the demo model: killed and resumed, beside others, and with an engine of their own that dies."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))

from loop_world import running, setpoint
from offline_world import results

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import ResolvedModel
from setpoint.engine.threaded import ThreadedEngine
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.views import BATCH
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer

pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
REQUESTS = 40
WAIT_S = 60.0


@pytest.fixture(scope="module")
def engine(demo_model: ResolvedModel) -> ThreadedEngine:
    return embedded_engine(demo_model, ServingConfig(max_running=8, token_budget=256, kv_cache_tokens=8192))


@pytest.fixture(scope="module")
def server(engine: ThreadedEngine) -> Iterator[BackgroundServer]:
    with BackgroundServer(create_app(engine)) as one:
        yield one


def eventually(true: Callable[[], bool]) -> None:
    """Look until ``true()`` holds, ``WAIT_S`` seconds at most."""
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s, "what was waited for never came"
        time.sleep(0.005)


def write_work(path: Path, model: str = MODEL, max_tokens: int = 12) -> list[str]:
    """Requests of both kinds; gives their names."""
    names = [f"request-{number}" for number in range(REQUESTS)]
    with path.open("w") as stream:
        for number, name in enumerate(names):
            body: dict[str, object] = {"model": model, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
            if number % 2:
                body["messages"] = [{"role": "user", "content": f"Say {number}."}]
            else:
                body["prompt"] = f"Count on: {number}, {number + 1},"
            url = "/v1/chat/completions" if number % 2 else "/v1/completions"
            stream.write(json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}) + "\n")
    return names


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def complete(path: Path, names: list[str]) -> bool:
    """Whether each request is answered once, with as many tokens as it asked for."""
    found = results(path)
    answers = {entry["custom_id"]: entry["response"]["body"] for entry in found}
    assert len(found) == len(answers)
    assert all(body["usage"]["completion_tokens"] == 12 for body in answers.values())
    return sorted(answers) == sorted(names)


def test_killed_twice_and_resumed_each_request_is_answered_once(
    server: BackgroundServer, engine: ThreadedEngine, tmp_path: Path
) -> None:
    names = write_work(tmp_path / "in")
    out = tmp_path / "out"
    arguments = ["batch", "in", "out", "--server", server.url, "--concurrency", "6"]
    for least in (5, 15):
        with running(*arguments, cwd=tmp_path) as process:
            eventually(lambda least=least: lines_in(out) >= least)  # type: ignore[misc]
            process.kill()
            process.wait()
        assert lines_in(out) < REQUESTS
    with out.open("ab") as stream:  # As a kill inside a write leaves it.
        stream.write(out.read_bytes()[:100])
    eventually(lambda: engine.gauges().running == engine.gauges().waiting == 0)
    last = setpoint(*arguments, "--json", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    summary = json.loads(last.stdout)
    assert summary["already_ended"] >= 15
    assert summary["done"] == REQUESTS
    assert complete(out, names)


def test_beside_it_interactive_requests_are_answered_and_the_engine_knows_which_is_which(
    server: BackgroundServer, engine: ThreadedEngine, tmp_path: Path
) -> None:
    names = write_work(tmp_path / "in")
    classes: list[int] = []
    submit = engine.submit

    async def noting(request):  # type: ignore[no-untyped-def]
        classes.append(request.request_class)
        return await submit(request)

    engine.submit = noting  # type: ignore[method-assign]
    try:
        with running("batch", "in", "out", "--server", server.url, "--concurrency", "16", cwd=tmp_path) as process:
            eventually(lambda: len(classes) >= 8)
            body = json.dumps({"model": MODEL, "prompt": "The", "max_tokens": 4}).encode()
            asked = Request(f"{server.url}/v1/completions", body, {"content-type": "application/json"})
            with urlopen(asked, timeout=WAIT_S) as answer:
                assert json.load(answer)["usage"]["completion_tokens"] >= 1
            _, err = process.communicate(timeout=WAIT_S)
    finally:
        engine.submit = submit  # type: ignore[method-assign]
    assert process.returncode == 0, err
    assert complete(tmp_path / "out", names)
    assert classes.count(BATCH) == REQUESTS
    assert len(classes) == REQUESTS + 1


def test_an_engine_of_its_own_that_dies_is_started_again(tmp_path: Path) -> None:
    names = write_work(tmp_path / "in", model="what-the-cloud-calls-it")
    out = tmp_path / "out"
    config = ServingConfig(max_running=4, kv_cache_tokens=4096).model_dump_json()
    with running("batch", "in", "out", "--serve", MODEL, "--config", config, cwd=tmp_path) as process:
        eventually(lambda: lines_in(out) >= 3)
        (engine,) = psutil.Process(process.pid).children()
        engine.kill()
        said, err = process.communicate(timeout=2 * WAIT_S)
    assert process.returncode == 0, err
    assert "ended by SIGKILL" in err
    assert err.count("starting the engine") == 2
    assert "requests for what-the-cloud-calls-it are answered by smollm2-135m" in err
    assert said.startswith(f"{REQUESTS} requests: {REQUESTS} done, 0 failed")
    assert complete(out, names)
