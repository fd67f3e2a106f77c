"""DeepXDE's own example scripts through ``whence.adapters.deepxde``, beside DeepXDE and by hand.

``python -m benchmarks.deepxde_examples`` (after ``make bench``) takes the scripts of
``examples/pinn_forward`` and ``examples/pinn_inverse`` that name PyTorch among their backends from
DeepXDE's source distribution, which pip downloads (``--examples FOLDER``: from a folder), runs each
in a process of its own up to its first call of ``Model.train``, and compares, in float64:

- the residuals of all training points with what DeepXDE's own ``data.losses`` hands to its loss;
- the influence of points on outputs with the formula written out, dense, on the Jacobian that
  ``torch.autograd`` takes of DeepXDE's residuals one by one.

For the second, the loss has ``--points`` (60) training points of each term, on which the model's
own optimizer has taken 20 steps, and the damping is 1e-4 of the largest eigenvalue of the
Gauss-Newton matrix.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks._dense_influence import dense_influence, relative_error

MAX_RESIDUAL_ERROR = 1e-10
MAX_INFLUENCE_ERROR = 1e-8
MIN_CONVERTED = 18
DAMPING = 1e-4
N_STEPS = 20
MAX_SECONDS = 600


# --- one script, in a process of its own ---------------------------------------------------------


class Reached(Exception):
    """The script has come to its training."""


def for_pytorch(source: str) -> str:
    """Return a script with its alternatives for PyTorch in place of those for TensorFlow.

    Scripts have both, one under ``# Backend tensorflow…`` and one as a comment under
    ``# Backend pytorch``, as their readers are to choose.
    """
    lines = []
    mode = "keep"
    for line in source.split("\n"):
        header = re.match(r"\s*#.*\b[Bb]ackend (.*)", line)
        if header:
            mode = "keep"
            if "pytorch" in header[1]:
                mode = "take"
            elif "tensorflow" in header[1]:
                mode = "drop"
            lines.append(line)
            continue

        if mode == "drop":
            continue
        comment = re.match(r"(\s*)# ?(.*)", line)
        if mode == "take" and comment:
            line = comment[1] + comment[2]
        elif mode == "take" and line.strip():
            mode = "keep"
        lines.append(line)
    return "\n".join(lines)


def captured_model(script: Path):
    """Run a script until it trains; return its model."""
    import deepxde as dde
    import torch

    dde.config.set_default_float("float64")
    train = dde.Model.train
    models = []

    def capture(self, *args, **options):
        models.append(self)
        raise Reached

    dde.Model.train = capture
    os.chdir(script.parent)
    code = compile(for_pytorch(script.read_text()), script.name, "exec")
    try:
        # Some of the alternatives take torch without importing it.
        exec(code, {"__name__": "__main__", "torch": torch})
    except Reached:
        dde.Model.train = train
        return models[0]
    raise SystemExit("it does not train")


def own_residuals(model):
    """Return what DeepXDE hands to its losses, (N_k, m) by term, with their graph."""
    import torch

    data = model.data
    inputs = torch.as_tensor(data.train_x).requires_grad_()
    model.net.auxiliary_vars = None
    if data.train_aux_vars is not None:
        model.net.auxiliary_vars = torch.as_tensor(data.train_aux_vars)
    return data.losses(
        data.train_y, model.net(inputs), lambda zeros, error: error, inputs, model
    )


def compared(script: Path, n_points: int) -> dict[str, object]:
    """Return what a script's conversion comes to, as JSON takes it."""
    import torch

    import whence as wh
    from whence.adapters.deepxde import from_model

    model = captured_model(script)
    start = time.perf_counter()
    objective = from_model(model)
    seconds = time.perf_counter() - start
    theirs = dict(zip(objective.terms, own_residuals(model), strict=True))

    # Residuals at all training points.
    residual_error = 0.0
    tensors = objective.parameters.tensors()
    for name, term in objective.terms.items():
        if len(theirs[name]) != len(term.points):
            continue  # a batch of measurements, where whence has all
        value = term.residual(tensors, term.points).detach()
        residual_error = max(residual_error, relative_error(value, theirs[name]))

    # Influence of some of them.
    reduce_points(model, n_points)
    model.train(iterations=N_STEPS, display_every=N_STEPS, verbose=0)
    small = from_model(model)
    places = small.draw(next(iter(small.terms)), 3, seed=1).double()
    influence = wh.Influence(small, solver=wh.Exact(), damping=DAMPING)
    fast = torch.as_tensor(
        influence.attribute(wh.Output(places, small.outputs[0])).values
    )
    dense = brute_force(model, small, places)
    return {
        "terms": list(objective.terms),
        "parameters": objective.parameters.size,
        "by_autograd": sorted(
            name for name, t in objective.terms.items() if is_by_autograd(t)
        ),
        "residual_error": residual_error,
        "influence_error": relative_error(fast, dense),
        "seconds": seconds,
    }


def reduce_points(model, n: int) -> None:
    """Leave at most n points of each term, pairs of periodic ones together."""
    import numpy as np

    data = model.data
    parts = []
    counts = []
    start = 0
    for bc, count in zip(data.bcs, data.num_bcs, strict=True):
        rows = data.train_x[start : start + count]
        start += count
        if hasattr(bc, "component_x"):
            kept = spread(count // 2, n)
            rows = np.vstack([rows[: count // 2][kept], rows[count // 2 :][kept]])
        elif hasattr(bc, "points"):
            kept = spread(len(bc.points), n)
            bc.points = bc.points[kept]
            if bc.values.ndim:
                bc.values = bc.values[kept]
            bc.batch_size = None
            rows = bc.points
        else:
            rows = rows[spread(count, n)]
        parts.append(rows)
        counts.append(len(rows))

    inside = data.train_x[start:]
    parts.append(inside[spread(len(inside), n)])
    data.num_bcs = counts
    data.train_x_all = parts[-1]
    data.train_x_bc = np.vstack([*parts[:-1], inside[:0]])
    data.train_x = np.vstack(parts)
    data.train_y = data.soln(data.train_x) if data.soln else None
    if data.auxiliary_var_fn is not None:
        data.train_aux_vars = data.auxiliary_var_fn(data.train_x)


def spread(count: int, n: int):
    """Return at most n of ``count`` row numbers, evenly."""
    import numpy as np

    return np.linspace(0, count - 1, min(count, n)).astype(int)


def is_by_autograd(term) -> bool:
    """Whether a term's residual differentiates the network itself."""
    return "by_autograd" in term.residual.__code__.co_qualname


def brute_force(model, objective, places):
    """Return influences from DeepXDE's residuals and outputs alone."""
    residuals = dict(zip(objective.terms, own_residuals(model), strict=True))
    parameters = [
        *(p for p in model.net.parameters() if p.requires_grad),
        *model.external_trainable_variables,
    ]
    weights = {name: term.weight for name, term in objective.terms.items()}
    outputs = model.net(places.clone().requires_grad_())[:, 0]
    return dense_influence(parameters, residuals, weights, outputs, DAMPING)


# --- all of them ----------------------------------------------------------------------------------


def downloaded(folder: Path) -> Path:
    """Download DeepXDE's source distribution of the installed version; return its examples."""
    from importlib.metadata import version

    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "deepxde",
        f"deepxde=={version('deepxde')}", "--dest", str(folder),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (examples,) = folder.glob("*/examples")
    return examples


def result_of(script: Path, n_points: int) -> dict[str, object]:
    """Return what one script came to, run in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.deepxde_examples", "--script", str(script),
        "--points", str(n_points),
    ]  # fmt: skip
    environment = {**os.environ, "DDE_BACKEND": "pytorch", "MPLBACKEND": "Agg"}
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=MAX_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {MAX_SECONDS} s"}
    lines = [line for line in run.stdout.split("\n") if line.startswith("{")]
    if run.returncode or not lines:
        return {"failed": (run.stderr.strip().split("\n") or ["?"])[-1]}
    return json.loads(lines[-1])


def main() -> None:
    """Print a line for each script, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=Path)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.script is not None:
        print(json.dumps(compared(options.script.resolve(), options.points)))
        return

    with tempfile.TemporaryDirectory() as folder:
        examples = options.examples or downloaded(Path(folder))
        scripts = sorted(examples.resolve().glob("pinn_*/*.py"))
        scripts = [s for s in scripts if "pytorch" in s.read_text().split("import")[0]]
        n_good = 0
        print(
            "| script | terms | residuals | influence | |\n| --- | --- | --- | --- | --- |"
        )
        for script in scripts:
            if options.only not in script.name:
                continue
            result = result_of(script, options.points)
            name = f"{script.parent.name}/{script.stem}"
            if "failed" in result:
                print(f"| {name} | – | – | – | {result['failed']} |", flush=True)
                continue
            is_good = (
                result["residual_error"] <= MAX_RESIDUAL_ERROR
                and result["influence_error"] <= MAX_INFLUENCE_ERROR
            )
            n_good += is_good
            note = ""
            if result["by_autograd"]:
                note = "by autograd: " + ", ".join(result["by_autograd"])
            print(
                f"| {name} | {', '.join(result['terms'])} | {result['residual_error']:.1e} | "
                f"{result['influence_error']:.1e} | {note}{'' if is_good else ' **missed**'} |",
                flush=True,
            )

    met = "met" if n_good >= MIN_CONVERTED else "missed"
    print(f"\n{n_good} of {len(scripts)} scripts; bar: at least {MIN_CONVERTED}: {met}")


if __name__ == "__main__":
    main()
