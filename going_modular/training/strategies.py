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
    augment: str = "none"


# What `tests/by_hand/defaults.py` prints: each change against none (without augmentation), five
# seeds, on validation. The intervals are over the images, for the mean of the runs. Charts are
# read at 80 pixels, ants and bees at 128.
#
#                      full on charts (0.931)     full on ants and bees (0.859)
#   light augmentation +0.013 [+0.004, +0.023]    +0.027 [+0.009, +0.047]   in: a tenth more time
#   trunk rate x 2     +0.003 [-0.007, +0.014]    +0.004 [-0.016, +0.025]
#   trunk rate / 2.5   -0.029 [-0.043, -0.017]    -0.016 [-0.033, -0.000]
#   layer decay 0.7    -0.026 [-0.038, -0.014]    -0.004 [-0.020, +0.012]
#   clip norm 1        +0.003 [-0.005, +0.011]    -0.000 [-0.018, +0.018]
#   EMA                -0.001 [-0.006, +0.004]    -0.018 [-0.035, -0.003]
#
#                      probe on charts (0.912)    probe on ants and bees (0.908), both at 128 pixels
#   rate / 3           -0.014 [-0.026, -0.004]    +0.008 [-0.001, +0.020]
#   rate x 3           +0.006 [-0.001, +0.013]    -0.004 [-0.017, +0.005]
#
# Of few images, eight epochs are too few steps. Partial, at least 100 steps against eight epochs:
#   48 and 120 charts        +0.093 [+0.069, +0.117]    +0.051 [+0.029, +0.072]
#   8 and 20 ants and bees   -0.031 [-0.068, +0.005]    +0.014 [-0.025, +0.052]
#
# Where blocks stay frozen, augmentation is off: their outputs could not be kept.
LEAST_STEPS = 100
STRATEGIES = {
    "scratch": Strategy(share=1, epochs=12, lr=2e-3, pretrained=False),
    "feature_extraction": Strategy(share=0, epochs=20, lr=3e-3),
    "partial": Strategy(share=1 / 3, epochs=8, lr=2e-3, trunk_lr=5e-4),
    "full": Strategy(share=1, epochs=8, lr=2e-3, trunk_lr=5e-4, augment="light"),
    "lp_ft": Strategy(share=1, epochs=8, lr=5e-4, trunk_lr=5e-4, probe_first=True, augment="light"),
}
