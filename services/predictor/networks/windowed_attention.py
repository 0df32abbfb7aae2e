"""Causal self-attention to the last frames alone, with rotary positions (Su et al., 2021).

arXiv:2104.09864. A key is turned by its own position, and only the distance between two positions
shows in their product. So keys that were computed once stay valid while the window slides.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000.0


def rotations(first: int, count: int, head_width: int, like: Tensor) -> Tensor:
    """Cosines and sines of the positions from `first` on: (2, count, head_width / 2), as `like`.

    Angles are computed in float64: those of late positions are large.
    """
    positions = torch.arange(first, first + count, dtype=torch.float64, device=like.device)
    pairs = torch.arange(0, head_width, 2, dtype=torch.float64, device=like.device)
    angles = positions.unsqueeze(1) * ROTARY_BASE ** (-pairs / head_width)
    return torch.stack((angles.cos(), angles.sin())).to(like.dtype)


class KeyValueRing:
    """Keys and values of the last frames, each in the place of one that is no longer attended to.

    Attention takes them in any order, for keys carry their positions.
    """

    def __init__(self, batch: int, heads: int, frames: int, head_width: int, like: Tensor) -> None:
        self._stored = like.new_zeros(2, batch, heads, frames, head_width)
        self._frames = frames
        self._seen = 0

    def put(self, keys_values: Tensor) -> None:
        """Stores (2, batch, heads, any number of frames, head width)."""
        count = keys_values.shape[3]
        last = keys_values[:, :, :, -self._frames :]
        first = self._seen + count - last.shape[3]
        split = min(self._frames - first % self._frames, last.shape[3])
        self._stored[:, :, :, first % self._frames :][:, :, :, :split] = last[:, :, :, :split]
        self._stored[:, :, :, : last.shape[3] - split] = last[:, :, :, split:]
        self._seen += count

    def held(self) -> Tensor:
        """All that is attended to, (2, batch, heads, frames so far or all, head width)."""
        return self._stored[:, :, :, : min(self._seen, self._frames)]


class WindowedAttention(nn.Module):
    """Multi-head attention of each frame to itself and the `attention_frames` - 1 before it."""

    def __init__(self, width: int, heads: int, attention_frames: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.attention_frames = attention_frames
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, frames: Tensor, rotary: Tensor, ring: KeyValueRing | None = None) -> Tensor:
        """(B, F, width) to the same; `rotary` are of these frames; fills the `ring`."""
        queries, keys_values = self._heads(frames, rotary)
        if ring is not None:
            ring.put(keys_values)
        return self._joined(_attended(queries, keys_values, self.attention_frames))

    def step(self, frame: Tensor, rotary: Tensor, ring: KeyValueRing) -> Tensor:
        """The same for one further frame, (B, 1, width), after those in the `ring`."""
        query, key_value = self._heads(frame, rotary)
        ring.put(key_value)
        keys, values = ring.held()
        return self._joined(functional.scaled_dot_product_attention(query, keys, values))

    def ring(self, batch: int, like: Tensor) -> KeyValueRing:
        """An empty ring for this layer."""
        return KeyValueRing(batch, self.heads, self.attention_frames, self.head_width, like)

    def _heads(self, frames: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, heads, F, head width), keys and values (2, …)."""
        batch, count, _ = frames.shape
        parts = self.projection(frames).view(batch, count, 3, self.heads, self.head_width)
        parts = parts.permute(2, 0, 3, 1, 4)
        turned = _turned(parts[:2], rotary)
        return turned[0], torch.stack((turned[1], parts[2]))

    def _joined(self, attended: Tensor) -> Tensor:
        told: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return told


def _attended(queries: Tensor, keys_values: Tensor, reach: int) -> Tensor:
    """What each of (B, heads, F, head width) attends to: itself and the `reach` - 1 before it.

    Frames go in blocks of `reach`: one attends to its own block and to the block before, so that
    time and memory grow with the frames and not with their square.
    """
    batch, heads, frames, width = queries.shape
    blocks = -(-frames // reach)
    missing = blocks * reach - frames
    queries = functional.pad(queries, (0, 0, 0, missing))
    # A block of nothing before the first one.
    keys_values = functional.pad(keys_values, (0, 0, reach, missing))
    pairs = keys_values.unfold(3, 2 * reach, reach).transpose(-1, -2)
    places = torch.arange(blocks * reach, device=queries.device).view(blocks, 1, reach, 1)
    others = places[:, :, :1] - reach + torch.arange(2 * reach, device=queries.device)
    seen = (others >= 0) & (others <= places) & (others > places - reach)
    attended = functional.scaled_dot_product_attention(
        queries.reshape(batch, heads * blocks, reach, width),
        pairs[0].reshape(batch, heads * blocks, 2 * reach, width),
        pairs[1].reshape(batch, heads * blocks, 2 * reach, width),
        attn_mask=seen.repeat(heads, 1, 1, 1).view(1, heads * blocks, reach, 2 * reach),
    )
    return attended.view(batch, heads, blocks * reach, width)[:, :, :frames]


def _turned(parts: Tensor, rotary: Tensor) -> Tensor:
    """Turns (…, F, head width) by the positions that `rotary` are of."""
    cosines, sines = rotary
    left, right = parts.chunk(2, dim=-1)
    turned = torch.cat((left * cosines - right * sines, right * cosines + left * sines), dim=-1)
    return turned.to(parts.dtype)
