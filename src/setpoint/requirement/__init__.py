"""What the application needs: model, request profile, SLOs, objective, price.

The types are what the rest of setpoint works with, in SI units (seconds, tokens, requests per second). The loader reads
them from YAML in human units; ``render_requirement`` writes a commented file for a newcomer.
"""

from setpoint.requirement.examples import example_names, example_text
from setpoint.requirement.loader import load_requirement, parse_requirement
from setpoint.requirement.part import Fault, Part
from setpoint.requirement.problems import Problem, RequirementError
from setpoint.requirement.profile import (
    Arrival,
    ArrivalProcess,
    Burst,
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    RequestProfile,
    TokenDistribution,
    UniformTokens,
)
from setpoint.requirement.render import render_requirement
from setpoint.requirement.slos import LatencyMetric, LatencySlo, Slos, SpreadSlo
from setpoint.requirement.types import ModelSource, Objective, Price, Requirement
from setpoint.requirement.units import UnitError

__all__ = [
    "Arrival",
    "ArrivalProcess",
    "Burst",
    "ChoiceTokens",
    "ConstantTokens",
    "Fault",
    "LatencyMetric",
    "LatencySlo",
    "LognormalTokens",
    "ModelSource",
    "Objective",
    "Part",
    "Price",
    "Problem",
    "RequestProfile",
    "Requirement",
    "RequirementError",
    "Slos",
    "SpreadSlo",
    "TokenDistribution",
    "UniformTokens",
    "UnitError",
    "example_names",
    "example_text",
    "load_requirement",
    "parse_requirement",
    "render_requirement",
]
