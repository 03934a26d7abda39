"""The load generator's account of itself (``record.Candidate.client``) in words. What an account lacks is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from setpoint.report.format import count, number, percent, rate, seconds
from setpoint.report.words import Fact, metric_name

Account = Mapping[str, Any]


def client_facts(client: Account) -> list[Fact]:
    """The account as labels and texts, the verdict first."""
    return list(_facts(client))


def client_line(client: Account) -> str:
    """The account in one line for a terminal."""
    parts = [text for text in (_error_words(client), _arrival_words(client), _cpu_words(client)) if text]
    return "; ".join(parts)


def _facts(client: Account) -> Iterator[Fact]:
    if text := _error_words(client):
        yield Fact("Its own error", text[:1].upper() + text[1:])
    for phase in _list(client, "arrivals"):
        if text := _fidelity_words(phase):
            yield Fact(f"Arrivals, {phase.get('phase', '')}", text)
    for label, key in (("Sends behind the plan", "send_lag_s"), ("Event loop behind", "loop_lag_s")):
        if text := _levels(_part(client, key)):
            yield Fact(label, text)
    hold = _part(client, "hold_s")
    if hold.get("p99") is not None:
        yield Fact("Taken up to sent, P99", f"{seconds(hold['p99'])}{_of_which(hold)}")
    if text := _cpu_words(client):
        yield Fact("Processor", text[:1].upper() + text[1:])
    if text := _connection_words(_part(client, "connections")):
        yield Fact("Connections", text)
    if text := _capacity_words(_part(client, "capacity")):
        yield Fact("Good to", text)


def _error_words(client: Account) -> str:
    """The worst of its errors beside what it is compared with."""
    errors = [error for error in _list(client, "errors") if error.get("error_share_of_limit") is not None]
    if not errors:
        return ""
    worst = max(errors, key=lambda error: float(error["error_share_of_limit"]))
    share = percent(worst["error_share_of_limit"])
    against = "the limit" if worst.get("limit_stated") else "a usual limit"
    name = metric_name(str(worst.get("of", "")))
    verdict = "too much" if worst.get("too_large") else "fair"
    error, limit = seconds(worst["error_p99_s"]), seconds(worst["limit_s"])
    return f"at most {error} of {name} (P99), {share} of {against} of {limit}: {verdict}"


def _arrival_words(client: Account) -> str:
    sustained = next((each for each in _list(client, "arrivals") if each.get("phase") == "sustained"), None)
    if sustained is None:
        return ""
    words = "arrivals as planned" if sustained.get("faithful") else "arrivals not as planned"
    lag = sustained.get("lag_p99_s")
    return words if lag is None else f"{words}, late by {seconds(lag)} (P99)"


def _fidelity_words(phase: Account) -> str:
    planned, realised = _part(phase, "planned"), _part(phase, "realised")
    if planned.get("rate_rps") is None or realised.get("rate_rps") is None:
        return ""
    words = [f"{rate(realised['rate_rps'])} sent, {rate(planned['rate_rps'])} planned"]
    for name, key in (("variation of the gaps", "gap_cv"), ("dispersion", "dispersion")):
        if planned.get(key) is not None and realised.get(key) is not None:
            words.append(f"{name} {number(realised[key])}, planned {number(planned[key])}")
    words.append("faithful" if phase.get("faithful") else "not faithful")
    return "; ".join(words)


def _levels(found: Account) -> str:
    names = (("P50", "p50"), ("P99", "p99"), ("largest", "max"))
    return ", ".join(f"{name} {seconds(found[key])}" for name, key in names if found.get(key) is not None)


def _of_which(hold: Account) -> str:
    parts = (("waiting for a connection limit", "pool_wait_p99"), ("connecting", "connect_p99"))
    words = [f"{name} {seconds(hold[key])}" for name, key in parts if hold.get(key)]
    return f", of which {' and '.join(words)}" if words else ""


def _cpu_words(client: Account) -> str:
    cpu = _part(client, "cpu")
    if cpu.get("busiest_core_share") is None:
        return ""
    workers = client.get("workers") or 1
    processes = "1 process" if workers == 1 else f"{workers} processes"
    words = f"{processes}, {percent(cpu['busiest_core_share'])} of a core"
    if workers != 1:
        words += " for the busiest"
    if cpu.get("machine_share") is not None:
        words += f", all cores {percent(cpu['machine_share'])} busy"
    if cpu.get("output_tokens_per_cpu_s") is not None:
        words += f", {number(cpu['output_tokens_per_cpu_s'])} tokens per second of it"
    return words


def _connection_words(found: Account) -> str:
    if found.get("opened") is None:
        return ""
    words = f"{count(found['opened'])} opened, {count(found.get('in_flight_peak'))} in flight at most"
    if found.get("max_in_flight") is not None:
        words += f" of {count(found['max_in_flight'])} allowed"
    if found.get("requests_held_back"):
        words += f", {count(found['requests_held_back'])} requests held back"
    return words


def _capacity_words(capacity: Account) -> str:
    if capacity.get("tokens_per_s") is None:
        return ""
    measured = "measured on this machine" if capacity.get("measured_unix_s") else "assumed, not measured on this machine"
    requests = capacity.get("requests_per_s")
    figures = f"{number(capacity['tokens_per_s'])} tokens/s" + (f" or {rate(requests)}" if requests else "")
    return f"{figures} for each process ({measured})"


def _part(account: Account, name: str) -> Account:
    found = account.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(account: Account, name: str) -> list[Account]:
    found = account.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
