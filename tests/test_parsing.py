"""A parser of the flags that were given reads what the parser of all flags reads."""

import pytest
import tyro

from whence.cli import influence, score, train
from whence.cli.parsing import CONFIG, narrowed, parsed

LINES = {
    "train": [
        "burgers --threads 1",
        "burgers --resample.every 100 --score influence --seed 3",
        "burgers --resample.every=100 --adam.lr 0.1 --weighting ntk --seed 3",
        "burgers --gradient-norm.momentum 0.5 --weighting gradient_norm",
        "burgers --gradient_norm.momentum 0.5 --layers 2 8 1",
        "a.b.py --points pde=20 --schedule adam:4 gauss_newton:2",
    ],
    "influence": ["run --at 0.1 0.5", "run --of u --trak.dimension 9 --method trak"],
    "score": ["run --candidates 10", "run --score influence --influence.damping 0.1"],
}
MODULES = {"train": train, "influence": influence, "score": score}


def by_all_flags(options, line):
    return tyro.cli(options, args=line.split(), config=CONFIG)


@pytest.mark.parametrize(
    ("command", "line"), [(name, line) for name in LINES for line in LINES[name]]
)
def test_it_reads_what_the_parser_of_all_flags_reads(command, line):
    options = MODULES[command].Options
    assert narrowed(options, line.split()) is not options
    found = parsed(options, command, line.split())
    assert type(found) is options
    assert found == by_all_flags(options, line)


def test_help_and_errors_are_about_all_flags(capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(train.Options, "train", ["burgers", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.count("usage: whence train") == 1
    assert "--ntk.alpha" in shown

    # One letter is missing; what is near may be a flag of a class that no argument names.
    with pytest.raises(SystemExit) as ended:
        parsed(train.Options, "train", ["burgers", "--ntk-alpha", "9"])
    assert ended.value.code == 2
    assert "--ntk.alpha" in capsys.readouterr().err
    with pytest.raises(ValueError, match="did you mean 'ntk'"):
        parsed(train.Options, "train", ["burgers", "--weighting", "ntkk"])
