"""
What the default guard would have done to runs that were fine: `python -m benchmarks.healthy --data PATH [PATH ...]`.

Reads every trace under the paths and looks at those that say they succeeded. A *harmful block* is a blocking decision
(refuse, ask, reroute, roll back, halt) on a call that succeeded in such a run; every call is judged as if the run had
gone on as recorded. Public runs that say how they turned out: tau-bench (github.com/sierra-research/tau-bench).
"""

from __future__ import annotations

import argparse
from collections import Counter

from misstep.analysis import Analyzed, analyze
from misstep.decisions import Kind
from misstep.taxonomy import Severity

BLOCKING = frozenset({Kind.REFUSE, Kind.ASK, Kind.REROUTE, Kind.ROLL_BACK, Kind.HALT})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="files or folders of saved traces")
    options = parser.parse_args()
    solved = [
        found for found in analyze(options.data) if isinstance(found, Analyzed) and found.report.outcome == "success"
    ]
    alarmed: Counter[str] = Counter()
    blocks = warned = 0
    for found in solved:
        above = [anomaly for anomaly in found.report.anomalies if anomaly.severity.rank > Severity.INFO.rank]
        warned += bool(above)
        alarmed.update({anomaly.type.value for anomaly in above})
        blocking = [decision for decision in found.report.decisions if decision.kind in BLOCKING]
        blocks += len(blocking)
        for anomaly in above:
            print(f"{found.trace} step {anomaly.step}: {anomaly.type.value}: {anomaly.message}")
        for decision in blocking:
            print(f"{found.trace} step {decision.step}: would {decision.kind} for {decision.anomaly}")
    share = 100 * warned / len(solved) if solved else 0.0
    print(f"solved runs: {len(solved)}; with a warning above info: {warned} ({share:.1f} %); by type: {dict(alarmed)}")
    print(f"harmful blocks by the default guard: {blocks}")


if __name__ == "__main__":
    main()
