"""Bad input: one error that says what was given and what was expected, and nothing written."""

import dataclasses
import json
import shutil

import pytest
from bad_calls import CALLS, Case

from whence import cli, pinn
from whence.pinn.training.run_folder import FORMAT

TINY = "--points pde=40 --schedule gauss_newton:2 --quiet"
COMMAND = [
    Case("command", "trian wave", 2, ("command 'trian'", "did you mean 'train'")),
    Case("no problem", "train", 2, ("Missing from whence train", "PROBLEM")),
    Case("problem to train", "train burger", 2, ("'burger'", "did you mean 'burgers'")),
    Case("score", "train wave --score residul", 2, ("'residul'", "did you mean 'residual'")),
    Case("score to save", "score run --score influnce", 2, ("did you mean 'influence'",)),
    Case("flag", "train wave --scor residual", 2, ("--scor", "--score")),
    Case("flag of a group", "train wave --resample.evry 5", 2, ("--resample.every",)),
    Case("kind of constraints", "train wave --constraints sift", 2, ("did you mean 'soft'",)),
    Case("placing", "train wave --sampling sobl", 2, ("did you mean 'sobol'",)),
    Case("selection", "train wave --select topk", 2, ("did you mean 'top_k'",)),
    Case("number type", "train wave --dtype float46", 2, ("did you mean 'float64'",)),
    Case("device", "train wave --device tpu", 2, ("device 'tpu'",)),
    Case("optimizer", "train wave --schedule gaus:3", 2, ("'gaus:3'", "gauss_newton")),
    Case("steps", "train wave --schedule adam:many", 2, ("KIND:ITERATIONS", "'adam:many'")),
    Case("no steps", "train wave --schedule adam:0", 2, ("iterations", "got 0")),
    Case("counts", "train wave --points pde:3", 2, ("TERM=COUNT", "pde=500", "'pde:3'")),
    Case("count of a term", "train wave --points pdf=3", 2, ("'pdf'", "did you mean 'pde'")),
    Case("count of nothing", "train wave --points pde=0", 2, ("term 'pde'", "got 0")),
    Case("no time", "train wave --max-seconds 0", 2, ("max_seconds", "got 0")),
    Case("negative time", "train wave --max-seconds -1", 2, ("max_seconds", "got -1")),
    Case("time that is none", "train wave --max-seconds nan", 2, ("max_seconds", "got nan")),
    Case("time in words", "train wave --max-seconds ten", 2, ("--max-seconds", "ten")),
    Case("seed", "train wave --seed -1", 2, ("seed", "got -1")),
    Case("resume nothing", "train wave --out none --resume", 2, ("none holds no whence run",)),
    Case("resume by default", "train wave --resume", 2, ("runs/wave-0 holds no whence run",)),
    Case(
        "resume another problem", f"train wave --out run --resume {TINY}", 2,
        ("run was made with problem = 'burgers'", "'wave'"),
    ),
    Case(
        "resume with another seed", f"train burgers --out run --resume --seed 1 {TINY}", 2,
        ("seed = 0", "not 1"),
    ),
    Case(
        "resume another version", f"train burgers --out old --resume {TINY}", 2,
        ("old", "format 0", "this one reads formats 2 and 3"),
    ),
    Case(
        "resume what is garbled", f"train burgers --out garbled --resume {TINY}", 2,
        ("garbled/config.json", "not valid JSON"),
    ),
    Case(
        "resume what is damaged", f"train burgers --out damaged --resume {TINY}", 2,
        ("damaged/checkpoint.safetensors", "damaged"),
    ),
    Case("start from nothing", "train wave --start none", 2, ("none", "checkpoint")),
    Case("start from half a run", "train burgers --start half", 2, ("half", "checkpoint")),
    Case("start from damage", "train burgers --start damaged", 2, ("damaged/checkpoint",)),
    Case("start elsewhere", "train allen_cahn --start run", 2, ("run", "does not fit")),
    Case("out holds a run", f"train wave --out run {TINY}", 2, ("already holds a run", "--resume")),
    Case("out holds files", f"train wave --out full {TINY}", 2, ("full", "not an empty folder")),
    Case("out is a file", f"train wave --out full/notes.txt {TINY}", 2, ("full/notes.txt",)),
    Case("out is within a file", f"train wave --out full/notes.txt/a {TINY}", 2, ("notes.txt",)),
    Case("no new points", "train wave --resample.n 0", 2, ("n must be", "got 0")),
    Case(
        "more than the candidates", "train wave --resample.n 20 --resample.candidates 10", 2,
        ("n = 20 of 10", "candidates"),
    ),
    Case("update", "train wave --resample.update replaced", 2, ("did you mean 'replace'",)),
    Case(
        "a limit that does nothing",
        "train wave --resample.update replace --resample.max-points 50", 2,
        ("max_points does nothing",),
    ),
    Case(
        "option of another score", "train wave --score residual --grad-dot.sign abs", 2,
        ("--grad-dot.sign does nothing", "no score 'grad_dot'", "'residual'"),
    ),
    Case("no test points", "train wave --influence.n-test 0", 2, ("n_test", "got 0")),
    Case(
        "option of no optimizer", "train wave --adam.lr 1", 2, ("--adam.lr does nothing", "adam")
    ),
    Case("rate", "train wave --schedule adam:5 --adam.lr -1", 2, ("lr", "got -1")),
    Case("damping of a step", "train wave --gauss-newton.damping -1", 2, ("damping", "got -1")),
    Case(
        "saved scores missing", "train wave --saved-scores none.npz", 2,
        ("none.npz",),
    ),
    Case(
        "two scores", "train wave --score residual --saved-scores full/scores.npz", 2,
        ("--score and --saved-scores",),
    ),
    Case(
        "saved scores that are none", "train wave --saved-scores full/notes.txt", 2,
        ("full/notes.txt",),
    ),
    *(
        Case(f"{command} of {what}", f"{command} {run}", 2, says)
        for command in ("influence", "score", "plot")
        for what, run, says in (
            ("no run", "none", ("none holds no whence run", "config.json")),
            ("a file", "full/notes.txt", ("full/notes.txt holds no whence run",)),
            ("half a run", "half", ("half", "checkpoint.safetensors is missing")),
            ("a damaged run", "damaged", ("damaged/checkpoint.safetensors", "damaged")),
            ("a garbled run", "garbled", ("garbled/config.json", "not valid JSON")),
            ("another version", "old", ("old", "format 0", "this one reads formats 2 and 3")),
            ("an unknown problem", "own", ("own solves 'mine'", "burgers")),
            ("half a configuration", "bare", ("bare", "config.json")),
        )
    ),
    Case("unknown derivative", "influence run --of u_z", 2, ("'u_z'", "did you mean 'u_x'")),
    Case("coordinate explained", "influence run --of x", 2, ("--of x is a coordinate",)),
    Case("place outside", "influence run --at 5 0.5", 2, ("--at 5.0 0.5", "outside")),
    Case("half a place", "influence run --at 0.5", 2, ("2 numbers (x, t)", "got 1")),
    Case("place that is none", "influence run --at nan 0.5", 2, ("nan 0.5", "t=[0.0, 1.0]")),
    Case("place in words", "influence run --at here", 2, ("--at", "here")),
    Case("place of a loss", "influence run --of loss --at 0 0.5", 2, ("--at does nothing",)),
    Case("out in another format", "influence run --out x.png", 2, ("ends in .nc", "x.png")),
    Case("negative damping", "influence run --damping -1", 2, ("damping", "got -1")),
    Case("no damping", "influence run --damping 0", 2, ("singular", "damping=")),
    Case("curvature", "influence run --curvature hesse", 2, ("did you mean 'hessian'",)),
    Case("effect", "influence run --effect removed", 2, ("did you mean 'remove'",)),
    Case("no candidates", "score run --candidates 0", 2, ("--candidates", "got 0")),
    Case("term scored", "score run --term pdf", 2, ("'pdf'", "did you mean 'pde'")),
    Case("seed of a score", "score run --seed -1", 2, ("seed", "got -1")),
    Case("scores into a folder", "score run --candidates 9 --out full", 2, ("full",)),
    Case("plot into a file", "plot run --out full/notes.txt", 2, ("full/notes.txt",)),
    Case("plot without points", "plot pointless", 2, ("pointless", "points.npz")),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a run, and with much that is none."""
    root = tmp_path_factory.mktemp("world")
    run = root / "run"
    assert cli.main(["train", "burgers", "--out", str(run), *TINY.split()]) == 0
    for name in ("half", "damaged", "old", "bare", "garbled", "pointless"):
        shutil.copytree(run, root / name)
    for name in ("checkpoint.safetensors", "points.npz", "history.csv", "summary.json"):
        (root / "half" / name).unlink()
    whole = (root / "damaged" / "checkpoint.safetensors").read_bytes()
    (root / "damaged" / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    config = json.loads((run / "config.json").read_text())
    (root / "old" / "config.json").write_text(json.dumps({**config, "format": 0}))
    (root / "bare" / "config.json").write_text(json.dumps({"format": FORMAT}))
    (root / "garbled" / "config.json").write_text('{"format": ')
    (root / "pointless" / "points.npz").unlink()
    own = dataclasses.replace(pinn.zoo.load("burgers"), name="mine")
    pinn.train(
        own, points=20, schedule=[pinn.Adam(1)], out=root / "own", progress=False
    )
    (root / "full").mkdir()
    (root / "full" / "notes.txt").write_text("keep me")
    return root


def tree(root):
    """Every path below ``root`` with what it holds."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def message(case, capsys):
    """Do what the case says; return the message of the expected exception or exit."""
    if callable(case.call):
        with pytest.raises(case.error) as caught:
            case.call()
        return str(caught.value)
    try:
        code = cli.main(case.call.split())
    except SystemExit as ended:  # how the parser of the flags says it
        code = ended.code
    assert code == case.error
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{kind}: {case.name}")
        for kind, cases in (("call", CALLS), ("command", COMMAND))
        for case in cases
    ],
)
def test_one_clear_error_and_nothing_written(case, world, capsys, monkeypatch):
    monkeypatch.chdir(world)
    before = tree(world)
    said = " ".join(message(case, capsys).replace("│", " ").split())
    for part in case.says:
        assert part in said, said
    assert len(said) < 1700
    assert tree(world) == before


def test_every_case_is_another_one():
    for cases in (CALLS, COMMAND):
        assert len({case.name for case in cases}) == len(cases) >= 60
    assert len({case.call for case in COMMAND}) == len(COMMAND)
