"""Spectrograms side by side, as a PNG: what a person looks at before listening."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.cli.drawing import as_png, blank

if TYPE_CHECKING:
    from services.synth.evaluation.judgement import Panel

QUIETEST_DECIBELS = -100.0
LOUDEST_DECIBELS = 20.0


def spectrogram_picture(rows: "Sequence[Sequence[Panel]]", seconds_per_frame: float) -> bytes:
    """PNG of rows of log10-mel spectrograms, on one scale of time and of level.

    The same panels give the same bytes. There must be a panel in a row.
    """
    columns = max(len(row) for row in rows)
    figure = blank(4.2 * columns, 2.6 * len(rows), dots_per_inch=80)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    longest = max(panel.mel.shape[1] for row in rows for panel in row) * seconds_per_frame
    image = None
    for row, cells in zip(rows, grid, strict=True):
        for axes in cells[len(row) :]:
            axes.set_axis_off()
        for panel, axes in zip(row, cells, strict=False):
            bands, frames = panel.mel.shape
            image = axes.imshow(
                20 * panel.mel,
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                cmap="magma",
                vmin=QUIETEST_DECIBELS,
                vmax=LOUDEST_DECIBELS,
                extent=(0, frames * seconds_per_frame, 0, bands),
            )
            axes.set_xlim(0, longest)
            axes.set_title(panel.title, fontsize=9)
            axes.set_ylabel("Mel band", fontsize=8)
            axes.set_xlabel("Time (s)", fontsize=8)
            axes.tick_params(labelsize=7)
    if image is not None:
        figure.colorbar(image, ax=list(grid.flat), label="Level (dB)", pad=0.01, fraction=0.03)
    return as_png(figure)
