"""Pictures of image data beside the tables that commands write: which samples are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch.utils import _pytree as pytree

from whence import plots
from whence.cli.model_file import ModelFile
from whence.explore.sample_inputs import InputView
from whence.plots.style import Array
from whence.samples import Samples

MAX_IMAGES = 8
"""Images of positive, and of negative influence."""
MAX_SUSPECTS = 20


def draw_influences(file: ModelFile, table: xr.DataArray, kind: str, out: Path) -> None:
    """Draw the images of most influence beside ``out`` and say where; nothing of other data.

    Parameters
    ----------
    file:
        What names the data.
    table:
        The influences (target, point) of all training samples; of several targets their mean is
        drawn.
    kind:
        The coordinate that has labels.
    out:
        The file that the table is in.
    """
    training = training_samples(file)
    if not are_images(training):
        return
    chosen = extremes(table)
    images = images_at(training, chosen)
    figure = plots.extreme_images(
        table.isel(point=chosen),
        images,
        MAX_IMAGES,
        target_image=target_image(file, table),
        label=kind,
        names=words_of(file, table, (kind, f"target_{kind}")),
    )
    save_beside(figure, out)


def draw_suspects(file: ModelFile, ranked: xr.Dataset, out: Path) -> None:
    """Draw the most suspicious images beside ``out`` and say where; nothing of other data."""
    training = training_samples(file)
    if not are_images(training):
        return
    order = np.argsort(ranked["rank"].values, kind="stable")
    chosen = order[:MAX_SUSPECTS]
    some = ranked.isel(point=chosen)
    kind = file.kind_of_target()
    if "label" in some.coords:
        some = some.rename({"label": kind} if kind != "label" else {})
    images = images_at(training, chosen)
    names = words_of(file, some, (kind, "predicted"))
    figure = plots.suspicious_images(some, images, MAX_SUSPECTS, kind, names)
    save_beside(figure, out)


def save_beside(figure: Figure, out: Path) -> None:
    """Write a figure of images beside a file and say where."""
    png, svg = plots.save(figure, out.with_name(f"{out.stem}_images"))
    print(f"images: {png}  {svg}")


def training_samples(file: ModelFile) -> Samples:
    """Return the training samples of a file."""
    (term,) = file.objective.terms.values()
    samples = term.points
    assert isinstance(samples, Samples)
    return samples


def are_images(samples: Samples) -> bool:
    """Whether the samples are images, gray or in colors."""
    return InputView.of(samples).kind == "image"


def images_at(samples: Samples, places: Array) -> Array:
    """Return the images of some samples, (k, H, W) or (k, C, H, W), and read no other."""
    view = InputView.of(samples)
    some = samples[torch.as_tensor(places)]
    tensor = pytree.tree_leaves(some.inputs)[view.place]
    images: Array = tensor.detach().cpu().numpy()
    return images


def extremes(table: xr.DataArray) -> Array:
    """Return the places of the samples of highest and of lowest mean influence, in their order."""
    means = table.mean("target", skipna=False).values
    order = np.argsort(-means, kind="stable")
    n = min(MAX_IMAGES, len(order))
    return np.unique(np.concatenate([order[:n], order[len(order) - n :]]))


def target_image(file: ModelFile, table: xr.DataArray) -> Array | None:
    """Return the image of the test sample that is explained, if it is one sample."""
    if table.sizes["target"] != 1 or "target_index" not in table.coords:
        return None
    test = file.objective.prepare("the test data", file.test())
    assert isinstance(test, Samples)
    (image,) = images_at(test, table["target_index"].values)
    return image


def words_of(
    file: ModelFile, table: xr.DataArray | xr.Dataset, names: tuple[str, ...]
) -> dict[object, str] | None:
    """Return labels as the file's ``classes`` call them; None where it has no such list."""
    classes = file.list_of_names("classes")
    if classes is None:
        return None
    words: dict[object, str] = {}
    for name in names:
        column = table.get(name) if isinstance(table, xr.Dataset) else None
        if name in table.coords:
            column = table.coords[name]
        if column is None:
            continue
        for label in np.unique(column.values).tolist():
            # Labels beyond the list, such as one that the loss ignores, are themselves.
            is_listed = label == int(label) and 0 <= label < len(classes)
            words[label] = classes[int(label)] if is_listed else f"{label:g}"
    return words
