"""Scores computed ahead and kept in a file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whence import _checks
from whence._files import PathLike, make_folder, read_arrays, write_atomically
from whence.objective import Objective
from whence.pinn.sampling.scores.base import Candidates, by_term, check_scores


@dataclass(frozen=True, eq=False)
class SavedScore:
    """Scores computed ahead: candidates of one term with a value each.

    ``save`` writes them, ``load`` reads them back; resampling with a saved score draws from
    its own candidates.

    Examples
    --------
    >>> import torch, tempfile, pathlib
    >>> from whence import pinn
    >>> saved = pinn.SavedScore("pde", torch.zeros(2, 2), torch.tensor([1.0, 2.0]))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scores.npz"
    >>> saved.save(path)
    >>> pinn.SavedScore.load(path).values
    tensor([1., 2.], dtype=torch.float64)
    """

    term: str
    candidates: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        _checks.points("the candidates", self.candidates, "d")
        check_scores(self.values)
        if self.values.shape != self.candidates.shape[:1]:
            raise ValueError(
                f"expected one value for each of {len(self.candidates)} candidates, got shape "
                f"{tuple(self.values.shape)}"
            )

    def score(self, objective: Objective, candidates: Candidates) -> Tensor:
        """Return the saved values; other candidates than the saved ones are an error."""
        terms = by_term(objective, candidates)
        like = next(iter(terms.values()))
        saved = self.candidates.to(like)  # float32 training rounds them

        if list(terms) != [self.term] or not torch.equal(terms[self.term], saved):
            raise ValueError(
                f"these scores were saved for {len(self.candidates)} other candidates of term "
                f"{self.term!r}: score their own `candidates`, or compute new scores"
            )

        return self.values

    def save(self, path: PathLike) -> None:
        """Write the scores as a compressed ``.npz``, through a temporary file and a rename."""
        path = Path(path)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            candidates=self.candidates.detach().cpu().numpy(),
            values=self.values.detach().cpu().numpy(),
            term=np.asarray(
                json.dumps(self.term)
            ),  # an array of text, not an object to unpickle
        )
        make_folder(path.parent)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: PathLike) -> SavedScore:
        """Read scores written by :meth:`save`; nothing in the file can run code.

        A file that is damaged or holds something else is a ``ValueError`` that names it.
        """
        arrays = read_arrays(Path(path))
        missing = sorted({"candidates", "values", "term"} - set(arrays))
        if missing:
            raise ValueError(
                f"{path} holds no saved scores: {', '.join(missing)} missing"
            )

        try:
            return cls(
                json.loads(str(arrays["term"])),
                # float64 holds candidates of float32 exactly.
                torch.from_numpy(arrays["candidates"].astype(np.float64)),
                torch.from_numpy(arrays["values"].astype(np.float64)),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no saved scores: {error}") from None
