#!/usr/bin/env python3
"""An agent as of examples/agents/python, whose handler gives what cannot be an answer: for check_agent.py.

    odd_agent.py HOST:PORT PREFIX
"""

import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "agents" / "python"))

from agent import Agent, Failure  # noqa: E402


def loop():
    endless = []
    endless.append(endless)
    return endless


def give(task, inputs, context):
    match task["give"]:
        case "set":
            return {1, 2}
        case "nan":
            return {"ratio": float("nan")}
        case "loop":
            return loop()
        case "large":
            return "x" * 2_000_000
        case "large for the topic":
            return "x" * 800_000
        case "large failure":
            raise Failure("error", "x" * 2_000_000)
        case "details":
            raise Failure("error", "no", details={1, 2})
        case "progress":
            context.progress(float("nan"))
    return "good"


def main():
    bootstrap, prefix = sys.argv[1:]
    agent = Agent("cmo_agent", give, bootstrap, prefix, concurrency=1)
    signal.signal(signal.SIGTERM, agent.stop)
    agent.run()


if __name__ == "__main__":
    main()
