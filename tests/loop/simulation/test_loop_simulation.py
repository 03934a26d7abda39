"""``setpoint simulate`` from the command line to its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from setpoint.cli import USAGE_ERROR, app
from setpoint.hardware.accelerator import accelerator
from setpoint.loop.errors import BadInput
from setpoint.record import Report
from setpoint.report.files import read_run
from setpoint.requirement import example_text

SMALL = ("--rate", "8/s", "--requests", "150", "--prompt-tokens", "64-256", "--output-tokens", "32", "--warmup", "1s")
GPU = ("--model", "llama-3.1-8b", "--hardware", "h100-sxm")


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Report, str]:
    """Exit code, report, and its text."""
    code = app(["simulate", *words, "--json"], standalone_mode=False)
    text = capsys.readouterr().out
    return code, Report.model_validate_json(text), text


@pytest.mark.parametrize("engine", ["vllm", "setpoint"])
def test_options_alone_are_enough_and_the_same_seed_gives_the_same_bytes(
    engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report, text = simulated(capsys, *GPU, *SMALL, "--engine", engine)
    again = simulated(capsys, *GPU, *SMALL, "--engine", engine)[2]
    other = simulated(capsys, *GPU, *SMALL, "--engine", engine, "--seed", "1")[2]
    assert text == again != other
    assert (code, report.kind, len(report.candidates)) == (0, "simulate", 1)
    candidate = report.candidates[0]
    assert candidate.measured is None
    assert candidate.predicted is not None
    figures = candidate.predicted.sustained
    assert figures.offered == figures.ok == 150
    assert figures.itl_s.n == 150 * 31
    assert 0 < (figures.ttft_s.p50 or 0) < (figures.e2e_s.p50 or 0)
    assert candidate.predicted.source in ("measured", "transferred", "physics")
    assert candidate.config["mode"] == "continuous"
    assert (report.load or {})["simulated"]["engine"] == engine


@pytest.mark.parametrize(("device", "said"), [("h100-sxm", "(one standard deviation)"), ("mi300x", "(a guess)")])
def test_how_far_a_step_may_be_off_is_called_a_guess_where_it_is_one(
    device: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--rate", "2/s", "--requests", "10", "--prompt-tokens", "64", "--output-tokens", "8", "--warmup", "0s")
    report = simulated(capsys, "--model", "llama-3.1-8b", "--hardware", device, *words)[1]
    (reason,) = [each for each in report.validity.reasons if "a step is right to about" in each]
    assert reason.endswith(f"{said}.")
    assert (report.load or {})["simulated"]["relative_error_is_guess"] is (device == "mi300x")


def test_a_requirement_is_judged_and_its_run_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(example_text("coding-assistant"), encoding="utf-8")
    folder = tmp_path / "run"
    code, report, _ = simulated(capsys, str(file), *GPU, "--duration", "100s", "--output", str(folder))
    candidate = report.candidates[0]
    assert code == 0
    assert report.chosen == candidate.name == "setpoint-1024"
    assert {check.metric for check in candidate.slo.checks} == {"ttft", "itl", "goodput_fraction"}
    assert candidate.predicted is not None
    assert candidate.predicted.burst is not None
    run = read_run(folder)
    assert run.report == report
    assert run.requests.num_rows > candidate.predicted.sustained.offered
    assert (folder / "report.html").stat().st_size > 10_000
    heavy = ("--duration", "20s", "--rate", "50/s", "--burst-rate", "60/s", "--burst-duration", "1s")
    slow = simulated(capsys, str(file), *GPU, *heavy, "--max-running", "4")
    assert slow[0] == 1
    assert slow[1].candidates[0].slo.verdict == "missed"


def test_a_trace_finds_its_prefixes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"timestamp": 200 * n, "input_length": 1600, "output_length": 20, "hash_ids": [7, 8, 9, 100 + n]} for n in range(60)
    ]
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    _, report, _ = simulated(capsys, *GPU, "--trace", str(file), "--warmup", "1s")
    predicted = report.candidates[0].predicted
    assert predicted is not None
    assert predicted.sustained.prefix_hit_rate == pytest.approx(1536 / 1600, rel=0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "no-such-model"), "no-such-model"),
        (("--hardware", "h1000", "--model", "llama-3.1-8b"), "h1000"),
        (("--hardware", "l4", "--model", "llama-3.1-70b"), "does not fit"),
        ((*GPU, "--engine", "other"), "--engine other: allowed are setpoint, vllm"),
        ((*GPU, "--routing", "other"), "--routing other: allowed are round-robin, least-outstanding"),
        ((*GPU, "--mode", "other"), "--mode"),
        ((*GPU, "--max-running", "5000"), "--max-running"),
        ((*GPU, "--concurrency", "4"), "--concurrency: belongs to setpoint measure"),
        ((*GPU, "--requests", "5", "--duration", "5s"), "--requests"),
        ((*GPU, "--requests", "1000001"), "--requests 1000001: at most 1000000 requests can be planned"),
        ((*GPU, "--speed-up", "2"), "--speed-up: there is no trace; add --trace FILE"),
        ((*GPU, "--trace-start", "5s"), "--trace-start: there is no trace"),
        ((*GPU, "--trace", "x.jsonl", "--prompt-tokens", "9"), "--prompt-tokens: not together with --trace: the trace says"),
        ((*GPU, "--trace", "x.jsonl", "--burst-rate", "9/s"), "--burst-rate: not together with --trace"),
        ((*GPU, "--trace", "x.jsonl", "--turns", "3"), "--turns: not together with --trace"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        app(["simulate", *words], standalone_mode=False)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_simulated(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    too_much = ("--rate", "100000/s", "--duration", "9000s", "--warmup", "0")
    with pytest.raises(BadInput, match="cannot be simulated"):
        app(["simulate", *GPU, *too_much], standalone_mode=False)
    with pytest.raises(BadInput, match=r"--output .*there is a file in the way"):
        app(["simulate", *GPU, *too_much, "--output", str(tmp_path / "file")], standalone_mode=False)


def written(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    """A Mooncake trace."""
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def test_a_trace_says_how_many_requests_there_are(tmp_path: Path) -> None:
    row: dict[str, object] = {"input_length": 16, "output_length": 2, "hash_ids": [7]}
    trace = written(tmp_path, [{**row, "timestamp": 200 * n} for n in range(60)])
    with pytest.raises(BadInput, match="--requests: the trace says how many; cut it with --duration"):
        app(["simulate", *GPU, "--trace", trace, "--requests", "5"], standalone_mode=False)


def test_what_the_model_does_not_take_of_a_trace_is_cut_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, object] = {"output_length": 20, "hash_ids": [7]}
    lengths = [9000 if n % 2 else 100 for n in range(60)]
    rows = [{**row, "timestamp": 500 * n, "input_length": length} for n, length in enumerate(lengths)]
    model = ("--model", "llama-3-8b", "--hardware", "h100-sxm")
    _, report, _ = simulated(capsys, *model, "--trace", written(tmp_path, rows), "--warmup", "1s")
    predicted = report.candidates[0].predicted
    assert predicted is not None
    assert predicted.sustained.failed == 0
    assert any(note.endswith("prompts were cut to the most tokens that the model takes.") for note in report.validity.reasons)


def test_turns_wait_for_the_answers_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Without think times they would all come at once, and find nothing of each other in the cache."""
    words = ("--rate", "2/s", "--duration", "60s", "--prompt-tokens", "400", "--output-tokens", "40", "--turns", "4")
    _, report, _ = simulated(capsys, *GPU, *words)
    predicted = report.candidates[0].predicted
    assert predicted is not None
    assert predicted.sustained.prefix_hit_rate is not None
    assert predicted.sustained.prefix_hit_rate > 0.5


@pytest.mark.parametrize(("hardware", "replicas", "each"), [("h100-sxm", 2, None), ("this-machine", 2, 0.5)])
def test_a_price_is_that_of_what_is_simulated(
    hardware: str, replicas: int, each: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The requirement says what this machine costs, whatever else is simulated; replicas cost one each."""
    file = tmp_path / "my.yaml"
    file.write_text(
        "name: x\nprofile: {prompt_tokens: 20, output_tokens: 4, arrival: {rate: 2/s}}\nprice: $0.5/h\n", encoding="utf-8"
    )
    model = "smollm2-135m" if hardware == "this-machine" else "llama-3.1-8b"
    words = ("--model", model, "--hardware", hardware, "--replicas", str(replicas), "--requests", "60")
    _, report, _ = simulated(capsys, str(file), *words)
    predicted = report.candidates[0].predicted
    assert predicted is not None
    figures = predicted.sustained
    usd_per_h = each or accelerator(hardware).price_usd_per_h or 0.0
    assert figures.usd_per_good_request is not None
    assert figures.usd_per_good_request * figures.ok / figures.duration_s * 3600 == pytest.approx(replicas * usd_per_h)


def test_layers_are_not_shared_where_nothing_links_devices() -> None:
    words = ("--model", "llama-3.1-8b", "--hardware", "this-machine", "--tensor-parallel", "2")
    with pytest.raises(BadInput, match="--tensor-parallel 2: this-machine has no link between devices"):
        app(["simulate", *words], standalone_mode=False)


def test_a_seed_is_a_number_that_columns_take() -> None:
    with pytest.raises(USAGE_ERROR, match="less than or equal to 9223372036854775807"):
        app(["simulate", *GPU, *SMALL, "--seed", str(1 << 63)], standalone_mode=False)
