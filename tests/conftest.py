"""What several folders of tests share: the demo model, read and compiled once."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_reference import Reference
from setpoint.engine.models import DEMO_MODEL, ResolvedModel, resolve_model
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.tokenizer import ModelTokenizer

ROOT = Path(__file__).parent
# Folders whose tests run real clients and servers against the clock: on shared cores a moment without the processor can fail
# any of them. Each has two more tries, and every try is shown in the output as "R"; what fails three times is broken.
REAL_TIME_FOLDERS = ("measure", "loop", "server")
MORE_TRIES = 2

F32_OPTIONS = ExecutorOptions(precision="f32", cache_precision="f32", kv_cache_tokens=4096)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of ``REAL_TIME_FOLDERS`` their further tries."""
    for item in items:
        if item.path.relative_to(ROOT).parts[0] in REAL_TIME_FOLDERS:
            item.add_marker(pytest.mark.flaky(reruns=MORE_TRIES))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Started in the background by a shell, pytest has SIGINT ignored, and so would the programs it starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def users_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs that tests make go into an index and calibrations of the tests, not into those of whoever runs them."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SETPOINT_DATA", str(folder))
        yield folder


@pytest.fixture(scope="session")
def demo_model() -> ResolvedModel:
    """The demo model's folder; converted on the first run of this machine."""
    return resolve_model(DEMO_MODEL)


@pytest.fixture(scope="session")
def tokenizer(demo_model: ResolvedModel) -> ModelTokenizer:
    return ModelTokenizer(demo_model.folder)


@pytest.fixture(scope="session")
def executor(demo_model: ResolvedModel) -> Iterator[OpenVinoExecutor]:
    """The demo model in F32 with 4096 tokens of KV cache, for tests that use it one after the other."""
    one = OpenVinoExecutor(demo_model.folder, F32_OPTIONS, time.monotonic)
    yield one
    one.close()


@pytest.fixture(scope="session")
def reference(demo_model: ResolvedModel, tokenizer: ModelTokenizer) -> Reference:
    return Reference(demo_model.folder, tokenizer.eos_ids)
