"""Learning: losses, gradients, regularisers, optimisers and schedules."""

from evsnn.learning.backprop import Gradient, backpropagate, losses
from evsnn.learning.optimiser import Optimiser
from evsnn.learning.schedule import rate_factor
from evsnn.learning.settings import LearningSettings

__all__ = ["Gradient", "LearningSettings", "Optimiser", "backpropagate", "losses", "rate_factor"]
