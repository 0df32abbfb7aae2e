"""The published "LSTMEncoderDecoderModel": sequence to sequence (Sutskever, Vinyals & Le, 2014)."""

from torch import Tensor, nn

from services.predictor.networks.anchor import anchor_of
from services.predictor.networks.network import FittingBatches, ForecastNetwork, NetworkShape
from services.predictor.networks.position import position_codes, with_codes


class LSTMEncoderDecoder(ForecastNetwork):
    """The decoder starts from the encoder's state and hears nothing but positions.

    Its input is a zero beside the position code, which goes on where the window's ended; without
    position codes it counts by its state alone.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.position_width = shape.dim_pos_encoding
        self.anchor = anchor_of(shape.anchor, shape.feature_count)
        self.encoder = nn.LSTM(
            shape.model_width, shape.hidden_size, shape.num_layers, batch_first=True
        )
        self.decoder = nn.LSTM(
            1 + shape.dim_pos_encoding, shape.hidden_size, shape.num_layers, batch_first=True
        )
        self.linear = nn.Linear(shape.hidden_size, shape.feature_count)
        if shape.anchor == "linear":
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, window: Tensor, steps: int) -> Tensor:
        """The `steps` frames after (B, F, E): (B, steps, E)."""
        batch, frames, _ = window.shape
        codes = position_codes(frames + steps, self.position_width, window)
        _, state = self.encoder(with_codes(window, codes[:frames]))
        silence = window.new_zeros(batch, steps, 1)
        decoded, _ = self.decoder(with_codes(silence, codes[frames:]), state)
        forecast: Tensor = self.linear(decoded) + self.anchor(window, steps)
        return forecast

    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Fits the anchor."""
        self.anchor.fit(batches, window_frames)
