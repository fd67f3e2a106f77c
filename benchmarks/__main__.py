"""Every speed benchmark, each in a process of its own, in one table.

``python -m benchmarks`` measures for about half an hour; nothing else should run meanwhile.
``python -m benchmarks scoring steps`` measures these parts only.
"""

from __future__ import annotations

import subprocess

from benchmarks import _measure

PARTS = (
    "startup",
    "steps",
    "higher_order",
    "weighting",
    "scoring",
    "attribution",
    "fields",
    "flow",
    "solvers",
    "groups",
    "classification",
    "detection",
    "retraining",
    "samples_memory",
    "compat",
    "busy",
    "time_to_error",
)


def main() -> None:
    """Run the parts and print one table."""
    parser = _measure.parser(__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}"
    )
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}: the parts are {', '.join(PARTS)}")
    options = [
        "--json",
        "--threads",
        str(given.threads),
        *(["--quick"] if given.quick else []),
    ]
    records, failed = [], []
    for part in given.parts or PARTS:
        _measure.say(f"# python -m benchmarks.{part}")
        try:
            records += _measure.child(f"benchmarks.{part}", *options)["rows"]
        except subprocess.CalledProcessError:
            failed.append(part)
    _measure.show(records, given)
    if failed:
        raise SystemExit(f"failed, see above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
