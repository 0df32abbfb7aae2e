"""A spool: frames put aside until the whole sound is known, in memory if few, on disk if many."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from services.temporary import temporary_room

BLOCK_FRAMES = 1024
IN_MEMORY_BYTES = 4 << 20

FloatArray = NDArray[np.float32]


class Spool:
    """An array (features, frames) float32 of any length; its file has no name and goes with it.

    It lies in blocks of BLOCK_FRAMES frames, each feature by feature, so that some frames, or one
    feature of all, are read without the rest. Raises StorageFullError where the disk is full.
    """

    def __init__(self, features: int, checkpoint: Callable[[], None] = lambda: None) -> None:
        """`checkpoint` is called with every block, in or out; what it raises ends the work."""
        self.frame_count = 0
        self.checkpoint = checkpoint
        self._features = features
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - see __exit__

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def fill(self, blocks: Iterable[FloatArray]) -> None:
        """Takes all frames, in blocks (features, n) of any n."""
        self.frame_count = self._fill(0, self._features, blocks)

    def fill_feature(self, feature: int, pieces: Iterable[FloatArray]) -> int:
        """Takes one feature of all frames, in pieces (n,) of any n; answers their number."""
        self.frame_count = self._fill(feature, 1, (piece[np.newaxis] for piece in pieces))
        return self.frame_count

    def blocks(self) -> Iterator[FloatArray]:
        """The frames in order, in blocks (features, n) of at most BLOCK_FRAMES."""
        return self._read(0, self._features)

    def feature(self, feature: int) -> Iterator[FloatArray]:
        """One feature of all frames, in pieces (n,)."""
        return (block[0] for block in self._read(feature, 1))

    def rows(self) -> Iterator[FloatArray]:
        """The frames in order, in blocks (n, features) that are contiguous row by row."""
        return (np.ascontiguousarray(block.T) for block in self.blocks())

    def _fill(self, first: int, features: int, blocks: Iterable[FloatArray]) -> int:
        held = np.zeros((features, BLOCK_FRAMES), np.float32)
        frames = 0
        for whole in blocks:
            block = whole
            while block.shape[1]:
                start = frames % BLOCK_FRAMES
                piece = block[:, : BLOCK_FRAMES - start]
                held[:, start : start + piece.shape[1]] = piece
                block = block[:, piece.shape[1] :]
                frames += piece.shape[1]
                if frames % BLOCK_FRAMES == 0:
                    self._write(frames // BLOCK_FRAMES - 1, first, held)
        if frames % BLOCK_FRAMES:
            self._write(frames // BLOCK_FRAMES, first, held)
        return frames

    def _write(self, block: int, first: int, held: FloatArray) -> None:
        self.checkpoint()
        with temporary_room():
            self._file.seek(self._offset(block, first))
            self._file.write(held.tobytes())
            self._file.flush()

    def _read(self, first: int, features: int) -> Iterator[FloatArray]:
        for start in range(0, self.frame_count, BLOCK_FRAMES):
            self.checkpoint()
            self._file.seek(self._offset(start // BLOCK_FRAMES, first))
            content = self._file.read(self._offset(0, features))
            held = np.frombuffer(content, np.float32).reshape(features, BLOCK_FRAMES)
            yield held[:, : self.frame_count - start]

    def _offset(self, block: int, feature: int) -> int:
        value = np.dtype(np.float32).itemsize
        return (block * self._features + feature) * BLOCK_FRAMES * value
