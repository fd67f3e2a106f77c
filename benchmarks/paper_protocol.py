"""The resampling paper's protocol with first-order optimizers only: Adam + L-BFGS, no Gauss–Newton.

Settings of arXiv 2506.16443 ("add"): hard constraints, Hammersley start, 1000 points (diffusion
30), float64, Adam lr 1e-3; rounds of 1000 Adam + 1000 L-BFGS steps; after each, 10,000 uniform
candidates are scored by influence (Σ|·| over 1000 test points, as the paper's code does) and 10
(diffusion 1) drawn with k = 2, c = 0. ``--rounds 10`` is 20,000 iterations.

``python -m benchmarks.paper_protocol burgers`` trains and prints error against iterations.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from whence import pinn


def schedule(rounds: int) -> list[pinn.Adam | pinn.LBFGS]:
    """Return rounds of 1000 Adam and 1000 L-BFGS steps."""
    return [
        stage for _ in range(rounds) for stage in (pinn.Adam(1000), pinn.LBFGS(1000))
    ]


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=pinn.zoo.names())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    few = given.problem == "diffusion"
    result = pinn.train(
        pinn.zoo.load(given.problem),
        points=30 if few else 1000,
        schedule=schedule(given.rounds),
        resample=pinn.Resample(
            pinn.InfluenceScore(reduce="sum_of_abs"),
            pinn.Proportional(k=2, c=0),
            n=1 if few else 10,
            every=2000,
        ),
        keep="last",
        seed=given.seed,
        out=given.out or Path("runs") / f"paper-{given.problem}-{given.seed}",
        resume=given.resume,
    )
    if given.json:
        print(json.dumps(result.summary))
        return
    print("| iterations | points | loss | relative L2 |\n| --- | --- | --- | --- |")
    for row in result.history:
        if row["iteration"] % 2000 == 0:
            print(
                f"| {row['iteration']} | {row['points']} | {row['loss']:.1e} | "
                f"{row['relative_l2']:.1e} |"
            )
    print(
        f"\n{result.summary['seconds']:.0f} s, {result.summary['parameters']} parameters"
    )


if __name__ == "__main__":
    main()
