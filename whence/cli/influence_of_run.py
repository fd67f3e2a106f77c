"""What ``whence influence`` does with a run: explain answers, follow a point, sum up terms."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import xarray as xr
from matplotlib.figure import Figure

from whence import plots
from whence._netcdf import write_netcdf
from whence.attribution.arguments import TrainingPoints
from whence.attribution.method import Method
from whence.attribution.quality import FarFromMinimum, quality
from whence.attribution.quantities import Quantity, TermLoss
from whence.attribution.quantities.several import as_quantity
from whence.attribution.summary import term_matrix
from whence.cli.chosen_points import one_point, points_of_terms, spread_points
from whence.cli.files import INFLUENCE_FILE, check_file
from whence.cli.influence_figures import influence_figures
from whence.cli.quantities import quantities_of_run
from whence.cli.run_options import RunOptions, check_together
from whence.cli.targets import WHOLE, Where
from whence.evaluation.leaving_out import leave_one_out
from whence.pinn.training.result import Result
from whence.plots.plane import is_plane
from whence.subsets import Members

POINT_FILE = "point_influence.nc"
"""What a run's folder calls what one training point does to fields."""
TERMS_FILE = "term_influence.nc"
REFITS_FILE = "leave_one_out.nc"
TARGETS = 400
FIELD_TARGETS = 15_000
"""Places of a field at which one training point is followed, unless said otherwise."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A run, the method that explains it, and what is asked for.

    Parameters
    ----------
    options:
        What is asked for.
    result:
        The run.
    method:
        How it is explained.
    effect:
        What happens to a point.
    out:
        File to write, None for the run's own.
    overwrite:
        Whether a former file that is not the run's own may go.
    """

    options: RunOptions
    result: Result
    method: Method
    effect: Literal["remove", "add"]
    out: Path | None
    overwrite: bool

    def run(self) -> int:
        """Do what is asked for; return the exit code."""
        check_together(self.options)
        # Retraining shows what removal does; addition is only predicted.
        if self.options.leave_out is not None and self.effect == "add":
            raise ValueError(
                "--leave-out trains without points: leave --effect add out, or --leave-out"
            )
        if self.options.summary:
            self.sum_up()
        elif self.options.point:
            self.follow_point()
        else:
            self.explain()
        return 0

    def explain(self) -> None:
        """Attribute answers to the training points, and draw them."""
        options = self.options
        n_targets = options.targets or TARGETS
        where = Where(options.at, options.region, n_targets)
        chosen = points_of_terms(self.result.objective, options.from_)
        quantities = quantities_of_run(self.result, options.of, where)
        self.check_memory(quantities, chosen)
        out = self.checked_file(INFLUENCE_FILE)
        refits_file = out
        if options.leave_out is not None:
            refits_file = self.checked_file(REFITS_FILE, added="_leave_one_out")

        table = attributed(self.method, quantities, self.effect, chosen)
        # One answer is a row, which is all that most figures take.
        is_one = table.sizes["target"] == 1
        written = table.isel(target=0) if is_one else table
        # Terms are written as plain coordinates: NetCDF has no index of strings.
        write_netcdf(written.drop_indexes("term"), out)

        print(plots.describe_targets(table))
        self.print_file(out, table)
        figures = influence_figures(written, self.result.problem)
        self.print_figures(out, figures)
        # Refits take longer than all before, so what they are compared with is on disk.
        if options.leave_out is not None:
            chosen_points = spread_points(table, options.leave_out)
            self.compare_with_refits(table, quantities, chosen_points, refits_file)

    def follow_point(self) -> None:
        """Say what one training point does to fields over the domain, and draw them."""
        options = self.options
        objective = self.result.objective
        term, index = one_point(objective, options.point)
        # Many targets, as one solve serves all of them.
        n_targets = options.targets or FIELD_TARGETS
        where = Where((), options.region, n_targets, otherwise=(WHOLE,))
        quantities = quantities_of_run(self.result, options.of, where)
        for quantity in quantities:
            # The targets of a field have coordinates, those of an aggregate a name alone.
            if objective.coordinates[0] not in quantity.targets(objective):
                raise ValueError(
                    f"--point draws fields, and {quantity.label()} has no place: leave it out of "
                    "--of"
                )

        out = self.checked_file(POINT_FILE)
        chosen = TrainingPoints({term: [index]})
        table = attributed(self.method, quantities, self.effect, chosen)
        write_netcdf(table.drop_indexes("term"), out)

        print(plots.describe_point(table))
        self.print_file(out, table)
        figures = {}
        if not where.is_box:
            print("no figure: parts of the boundary are lines, and no field")
        elif is_plane(objective.coordinates):
            figures[""] = plots.influence_field(table, self.result.problem)
        self.print_figures(out, figures)

    def sum_up(self) -> None:
        """Say what the points of each term do to the losses of all and to the solution."""
        options = self.options
        names = options.of
        n_targets = options.targets or TARGETS
        where = Where((), options.region, n_targets, otherwise=(WHOLE,))
        # The losses of all terms and the solution on the whole domain, unless said otherwise.
        if names:
            quantities = quantities_of_run(self.result, names, where)
        else:
            outputs = self.result.problem.outputs
            fields = quantities_of_run(self.result, outputs, where)
            quantities = [TermLoss(), *fields]

        out = self.checked_file(TERMS_FILE)
        table = term_matrix(self.method, quantities, self.effect)
        write_netcdf(table, out)

        print(plots.describe_terms(table))
        print(f"quality: {quality(table)}")
        print(f"term matrix: {out}  (xarray.open_dataset reads it)")
        figures = {
            "": plots.term_matrix(table),
            "_shares": plots.term_shares(table),
        }
        self.print_figures(out, figures)

    def compare_with_refits(
        self,
        predicted: xr.DataArray,
        quantities: Sequence[Quantity],
        points: Members,
        out: Path,
    ) -> None:
        """Train again without each of some points, and draw that beside what was predicted."""
        retrained = leave_one_out(
            self.result.objective,
            as_quantity(quantities),
            points,
        )
        write_netcdf(retrained.drop_indexes("term"), out)

        print(f"retrained: {out}  (xarray.open_dataarray reads it)")
        figure = plots.leave_one_out(predicted, retrained)
        self.print_figures(out, {"": figure})

    def check_memory(
        self, quantities: Sequence[Quantity], points: TrainingPoints | None
    ) -> None:
        """Raise ``MemoryError`` if the matrix does not fit, with what the command line can do."""
        method = self.method
        n_targets = method.n_targets(as_quantity(quantities))
        n_points = len(method.prepare_points(points))
        needed = n_targets * n_points * method.objective.parameters.dtype.itemsize
        # The sums of a summary need no matrix.
        if needed > method.memory_budget:
            raise MemoryError(
                f"{n_targets} targets × {n_points} points need {needed / 2**30:.1f} GiB: ask for "
                "fewer by --targets or --from, for --summary, or raise --memory-budget"
            )

    # --- files and what is printed ---

    def checked_file(self, name: str, added: str = "") -> Path:
        """Return the file to write, of the run or as asked for; one that must stay is an error."""
        # What the user names must not be there, unless asked to write over it.
        if self.out is not None:
            out = self.out.with_stem(self.out.stem + added)
            check_file(out, overwrite=self.overwrite)
            return out

        # A run has one of each, which `whence plot` draws; another file is another matter.
        out = self.options.run / name
        check_file(out)
        if out.is_file():
            print(f"{out} is written again; --out keeps the former one")
        return out

    def print_file(self, out: Path, table: xr.DataArray) -> None:
        """Say how far to trust an attribution, and where it is."""
        print(f"quality: {quality(table)}")
        print(f"attribution: {out}  (xarray.open_dataarray reads it)")

    def print_figures(self, out: Path, figures: Mapping[str, Figure]) -> None:
        """Write figures beside a file, by what is added to its name, and say where they are."""
        for added, figure in figures.items():
            # Beside the numbers, under their name.
            base = out.with_name(out.stem + added)
            png, svg = plots.save(figure, base)
            print(f"figure: {png}  {svg}")

        # What can be drawn of any problem, as a heat map, was drawn.
        problem = self.result.problem
        if not figures and not is_plane(problem.coordinates):
            print(f"no figure: a map needs two coordinates, {problem.name} has others")


def attributed(
    method: Method,
    quantities: Sequence[Quantity],
    effect: Literal["remove", "add"],
    points: TrainingPoints | None = None,
) -> xr.DataArray:
    """Return the attribution of quantities; what its quality tells is not warned of too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarFromMinimum)
        return method.attribute(quantities, points, effect)
