"""A server process for tests: serves the echoing engine until a signal. Arguments: port, seconds to drain, mode."""

from __future__ import annotations

import sys

from scripted_engine import ScriptedEngine

from setpoint.server.app import create_app
from setpoint.server.serve import run_server

if __name__ == "__main__":
    port, drain_s, mode = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    # "held" never steps: its streams end only when the drain is over.
    engine = ScriptedEngine(auto=mode != "held", max_model_len=65536)
    engine.failed = mode == "broken"
    sys.exit(run_server(create_app(engine), "127.0.0.1", port, drain_s=drain_s))
