"""The published "TransformerModel": encoder and decoder (Vaswani et al., 2017), all at once."""

from torch import Tensor, nn

from services.predictor.networks.anchor import anchor_of
from services.predictor.networks.network import FittingBatches, ForecastNetwork, NetworkShape
from services.predictor.networks.position import position_codes, with_codes


class Transformer(ForecastNetwork):
    """The decoder asks with zeros beside the continued position code, all frames at once.

    The encoder is causal, the decoder sees all that it asks; there is no output layer: the first
    channels of the last norm are the features.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.position_width = shape.dim_pos_encoding
        self.anchor = anchor_of(shape.anchor, shape.feature_count)
        self.encoder = shape.encoder()
        self.encoder.norm = nn.LayerNorm(shape.model_width)
        layer = nn.TransformerDecoderLayer(
            shape.model_width, shape.nhead, shape.dim_feedforward, shape.dropout, batch_first=True
        )
        norm = nn.LayerNorm(shape.model_width)
        self.decoder = nn.TransformerDecoder(layer, shape.num_layers, norm=norm)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
        if shape.anchor == "linear":
            nn.init.zeros_(norm.weight)

    def forward(self, window: Tensor, steps: int) -> Tensor:
        """The `steps` frames after (B, F, E): (B, steps, E)."""
        batch, frames, features = window.shape
        codes = position_codes(frames + steps, self.position_width, window)
        mask = nn.Transformer.generate_square_subsequent_mask(frames, window.device, window.dtype)
        memory = self.encoder(with_codes(window, codes[:frames]), mask=mask)
        question = with_codes(window.new_zeros(batch, steps, features), codes[frames:])
        change: Tensor = self.decoder(question, memory)[:, :, :features]
        answer: Tensor = change + self.anchor(window, steps)
        return answer

    def fit(self, batches: FittingBatches, window_frames: int) -> None:
        """Fits the anchor."""
        self.anchor.fit(batches, window_frames)
