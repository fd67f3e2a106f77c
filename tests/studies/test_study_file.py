"""Study files: what is read of them, and what is refused, before any run."""

from pathlib import Path

import pytest
from small_study import TEXT

from whence.studies.study import Study, StudyRun, name_of
from whence.studies.study_file import flag_names, read_study

PROBLEM_FILE = """
from whence import pinn

problem = pinn.Problem(
    domain=pinn.Interval("x", 0, 1),
    outputs=["u"],
    equations={"pde": lambda u_xx: u_xx + 1},
    conditions=[pinn.Dirichlet(u=0.0, on="x")],
)
network = lambda seed: pinn.MLP([1, 5, 1], seed=seed)
"""


def read(tmp_path, text):
    file = tmp_path / "study.toml"
    file.write_text(text)
    return read_study(file)


def test_every_combination_is_a_run(study_file):
    runs = read_study(study_file).runs
    assert len(runs) == 2 * 2 * 2
    assert runs[0].name == "diffusion-influence-0"
    assert runs[0].labels == {"problem": "diffusion", "method": "influence", "seed": 0}
    assert runs[0].arguments[0] == "diffusion"

    words = " ".join(runs[-1].arguments)
    assert runs[-1].name == "wave-random-1"
    assert "--score random" in words
    assert "--seed 1" in words
    assert "--resample.every 20" in words
    # Workers share the cores.
    assert "--threads 1" in words


def test_the_most_special_section_counts(tmp_path):
    text = """
    [grid]
    problem = ["diffusion", "wave"]

    [train]
    points = ["pde=10"]
    test = 5
    schedule = ["adam:10"]

    [problems.wave]
    points = ["pde=20"]
    test = 6

    [methods.a]
    test = 7
    """
    by_name = {run.name: run.arguments for run in read(tmp_path, text).runs}
    plain, special = by_name["diffusion-a-0"], by_name["wave-a-0"]
    assert plain[plain.index("--points") + 1] == "pde=10"
    assert special[special.index("--points") + 1] == "pde=20"
    assert special[special.index("--test") + 1] == "7"


MIXED = """
[grid]
problem = ["diffusion", "wave"]

[train]
schedule = ["adam:10"]
points = ["pde=10"]
resample.n = 5

[methods.residual]
score = "residual"

[methods.static]
resampler = "none"

[problems.wave.methods.static]
points = ["pde=30"]
"""


def test_flags_for_all_methods_are_for_those_that_use_them(tmp_path):
    by_name = {run.name: run.arguments for run in read(tmp_path, MIXED).runs}
    assert "--resample.n" in by_name["diffusion-residual-0"]
    assert "--resample.n" not in by_name["diffusion-static-0"]
    points = {
        name: words[words.index("--points") + 1] for name, words in by_name.items()
    }
    assert points == {
        "diffusion-residual-0": "pde=10",
        "diffusion-static-0": "pde=10",
        "wave-residual-0": "pde=10",
        "wave-static-0": "pde=30",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("resample.n", "ntk.alpha"),
            r"ntk.alpha of \[train\] does nothing, as no run uses",
        ),
        (("wave.methods.static]", "wave.methods.statc]"), "did you mean 'static'"),
        (("[problems.wave.m", "[problems.wave2.m"), "unknown problem"),
        ((".methods.static]\npoints", "]\nmethods"), "must be a section, got"),
        (('resampler = "none"', 'resampler = "none"\nresample.n = 5'), "does nothing"),
    ],
)
def test_flags_that_are_for_nobody(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, MIXED.replace(*change))


def test_a_flag_of_one_problem_must_do_something_there(tmp_path):
    text = """
    [grid]
    problem = ["diffusion", "wave"]

    [problems.diffusion]
    schedule = ["lbfgs:10"]
    adam.lr = 0.1

    [problems.wave]
    schedule = ["adam:10"]
    adam.lr = 0.1
    """
    with pytest.raises(
        ValueError, match=r"adam.lr of \[problems.diffusion\] does nothing"
    ):
        read(tmp_path, text)


def test_the_quick_studies_are_of_the_same_problems_and_methods(tmp_path):
    folder = Path(__file__).parents[2] / "studies"
    runs = {file.stem: read_study(file).runs for file in folder.glob("*.toml")}
    assert set(runs) == {"paper_add", "paper_replace", "quick_add", "quick_replace"}
    of = {
        name: {(run.labels["problem"], run.labels["method"]) for run in runs[name]}
        for name in runs
    }
    assert len(set(map(frozenset, of.values()))) == 1
    assert len(of["quick_add"]) == 5 * 7
    assert len(runs["quick_add"]) == len(runs["quick_replace"]) == 5 * 7 * 5


def test_any_flag_may_be_an_axis(tmp_path):
    text = """
    [grid]
    problem = ["diffusion"]
    weighting = ["none", "ntk"]
    layers = [[2, 8, 1], [2, 16, 1]]
    "adam.lr" = [0.001]

    [train]
    schedule = ["adam:10"]
    """
    runs = read(tmp_path, text).runs
    names = [run.name for run in runs]
    assert names[0] == "diffusion-none-2_8_1-0"
    assert len(names) == 4
    # An axis of one value tells nothing.
    assert "adam.lr" not in runs[0].labels
    assert "--adam.lr 0.001" in " ".join(runs[0].arguments)


def test_problem_files_lie_beside_the_study(tmp_path):
    (tmp_path / "rod.py").write_text(PROBLEM_FILE)
    study = read(
        tmp_path, '[grid]\nproblem = ["rod.py"]\n[train]\nschedule = ["adam:9"]'
    )
    (run,) = study.runs
    assert run.name == "rod-0"
    assert run.arguments[0] == str(tmp_path / "rod.py")

    (tmp_path / "rod.py").write_text(PROBLEM_FILE + "# another one\n")
    (changed,) = read(
        tmp_path, '[grid]\nproblem = ["rod.py"]\n[train]\nschedule = ["adam:9"]'
    ).runs
    assert changed != run


BAD = {
    "no toml": ("[grid", "is not TOML"),
    "no problem": ("[grid]\nseed = [0]", "needs problems"),
    "unknown section": ("[grids]\n", "did you mean 'grid'"),
    "unknown flag": (TEXT + "\nscor = 1", "did you mean 'score'"),
    "unknown flag of a class": (
        TEXT.replace("resample.every", "resample.evry"),
        "did you mean 'resample.every'",
    ),
    "unknown value": (
        TEXT.replace('"random"', '"randm"'),
        "did you mean 'random'",
    ),
    "unknown problem": (TEXT.replace('"wave"', '"waves"'), "did you mean 'wave'"),
    "problem without a place": (
        TEXT + '\n[problems.burgers]\npoints = ["pde=3"]',
        "unknown problem",
    ),
    "no such file": ('[grid]\nproblem = ["nowhere.py"]', "no problem file"),
    "set by the study": (TEXT + '\nout = "x"', "set by the study"),
    "seed of a method": ("[train]\nseed = 3\n" + TEXT.split("[train]")[0], "belongs"),
    "an empty axis": ("[grid]\nproblem = []", "no value"),
    "twice": ('[grid]\nproblem = ["wave", "wave"]', "share the folder 'wave-0'"),
    "does nothing": (TEXT + "\nr3.every = 3", "r3"),
    "a wrong term": (TEXT.replace("pde=30", "pd=30"), "did you mean 'pde'"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"study\.toml") as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_there_must_be_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no study file"):
        read_study(tmp_path / "nowhere.toml")


def test_two_files_of_one_name_would_share_a_folder():
    runs = [
        StudyRun.of({"problem": problem, "seed": 0}, [problem])
        for problem in ("a/rod.py", "b/rod.py")
    ]
    with pytest.raises(ValueError, match=r"a/rod.py and b/rod.py"):
        Study(tuple(runs))
    with pytest.raises(ValueError, match="at least one run"):
        Study(())


@pytest.mark.parametrize("label", ["../up", "a/b", "x y", "ümlaut", "a\0b"])
def test_names_are_those_of_folders(label):
    assert "/" not in name_of(label)
    assert "\0" not in name_of(label)
    assert name_of(label).strip("_")


def test_every_flag_of_train_may_be_set():
    names = flag_names()
    assert {"score", "resample.every", "ntk.alpha", "seed"} <= set(names)
    assert not {"out", "resume", "quiet", "resample"} & set(names)
