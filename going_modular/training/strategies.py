"""What each strategy trains, for how long and how fast; a recipe knows no model and no data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """Which share of the trunk's blocks trains, for how many epochs, and at which rates."""

    share: float
    epochs: int
    lr: float
    trunk_lr: float | None = None
    pretrained: bool = True
    probe_first: bool = False  # train the head on the frozen trunk before all the rest


STRATEGIES = {
    "scratch": Strategy(share=1, epochs=12, lr=2e-3, pretrained=False),
    "feature_extraction": Strategy(share=0, epochs=20, lr=3e-3),
    "partial": Strategy(share=1 / 3, epochs=8, lr=2e-3, trunk_lr=5e-4),
    "full": Strategy(share=1, epochs=8, lr=2e-3, trunk_lr=5e-4),
    "lp_ft": Strategy(share=1, epochs=8, lr=5e-4, trunk_lr=5e-4, probe_first=True),
}
