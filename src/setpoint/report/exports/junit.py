"""The verdict as JUnit XML: one test case a check, as continuous integration shows them.

A missed check is a failure, an inconclusive one is skipped with its reason, and of an invalid run every case is an error:
its figures say nothing in either direction.
"""

from __future__ import annotations

from xml.etree import ElementTree

from setpoint.record import Candidate, Report, SloCheck, Verdict
from setpoint.report.check_words import check_interval, check_limit, check_name, check_number
from setpoint.report.format import NO_BREAK, printable
from setpoint.report.verdicts import measures

VALID = "the run is valid"


def junit_xml(report: Report) -> str:
    """The report as a JUnit document, a test suite for each candidate."""
    root = ElementTree.Element("testsuites", name="setpoint")
    for candidate in report.candidates:
        root.append(_suite(report, candidate))
    _count(root, [case for suite in root for case in suite])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: Report, candidate: Candidate) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_plain(f"setpoint {report.kind} {candidate.name}"))
    where = _plain(f"setpoint.{candidate.name}")
    suite.append(_validity_case(report, where))
    for check in candidate.slo.checks:
        suite.append(_case(report, candidate, check, where))
    _count(suite, list(suite))
    return suite


def _validity_case(report: Report, where: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=where, name=VALID, time="0")
    if not report.validity.valid:
        _said(case, "error", "invalid run", " ".join(report.validity.reasons))
    return case


def _case(report: Report, candidate: Candidate, check: SloCheck, where: str) -> ElementTree.Element:
    figures = measures(candidate, check.phase)
    name = check.asserted or f"{check_name(check)} {check_limit(check)} ({check.phase})"
    seconds = f"{figures.duration_s:.3f}" if figures is not None else "0"
    case = ElementTree.Element("testcase", classname=where, name=_plain(name), time=seconds)
    words = check_words(check)
    if not report.validity.valid:
        _said(case, "error", "invalid run", words)
    elif check.verdict is Verdict.MISSED:
        _said(case, "failure", "missed", words)
    elif check.verdict is Verdict.INCONCLUSIVE:
        ElementTree.SubElement(case, "skipped", message=_plain(f"inconclusive: {words}"))
    return case


def check_words(check: SloCheck) -> str:
    """What was found, in one sentence."""
    found = "no value can be stated" if check.value is None else f"it is {check_number(check, check.value)}"
    interval = f", 95 % interval {check_interval(check)}" if check.interval is not None else ""
    return f"{check_name(check)} was to be {check_limit(check)} in the {check.phase} phase; {found}{interval}"


def _said(case: ElementTree.Element, kind: str, type_: str, message: str) -> None:
    element = ElementTree.SubElement(case, kind, message=_plain(message), type=type_)
    element.text = _plain(message)


def _count(element: ElementTree.Element, cases: list[ElementTree.Element]) -> None:
    element.set("tests", str(len(cases)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(kind) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _plain(text: str) -> str:
    return printable(text).replace(NO_BREAK, " ")
