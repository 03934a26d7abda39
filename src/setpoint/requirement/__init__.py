"""What the application needs: model, request profile, SLOs, objective, price.

The types are what the rest of setpoint works with, in SI units (seconds, tokens, requests per second). The loader reads
them from YAML in human units; ``render_requirement`` writes a commented file for a newcomer.
"""

from setpoint.requirement.arrival import Arrival, ArrivalProcess, Burst, Step
from setpoint.requirement.examples import example_names, example_text
from setpoint.requirement.loader import load_requirement, parse_requirement
from setpoint.requirement.part import Fault, Part
from setpoint.requirement.problems import Problem, RequirementError
from setpoint.requirement.profile import MixPart, RequestProfile, RequestShape
from setpoint.requirement.render import render_requirement
from setpoint.requirement.sessions import (
    ConstantSeconds,
    DurationDistribution,
    LognormalSeconds,
    Sessions,
    UniformSeconds,
)
from setpoint.requirement.slos import LatencyMetric, LatencySlo, Slos, SpreadSlo
from setpoint.requirement.speculation import Speculation
from setpoint.requirement.tokens import (
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    TokenDistribution,
    UniformTokens,
)
from setpoint.requirement.types import ModelSource, Objective, Price, Requirement
from setpoint.requirement.units import UnitError
from setpoint.requirement.wishes import HardwarePrice, PlanWishes

__all__ = [
    "Arrival",
    "ArrivalProcess",
    "Burst",
    "ChoiceTokens",
    "ConstantSeconds",
    "ConstantTokens",
    "DurationDistribution",
    "Fault",
    "HardwarePrice",
    "LatencyMetric",
    "LatencySlo",
    "LognormalSeconds",
    "LognormalTokens",
    "MixPart",
    "ModelSource",
    "Objective",
    "Part",
    "PlanWishes",
    "Price",
    "Problem",
    "RequestProfile",
    "RequestShape",
    "Requirement",
    "RequirementError",
    "Sessions",
    "Slos",
    "Speculation",
    "SpreadSlo",
    "Step",
    "TokenDistribution",
    "UniformSeconds",
    "UniformTokens",
    "UnitError",
    "example_names",
    "example_text",
    "load_requirement",
    "parse_requirement",
    "render_requirement",
]
