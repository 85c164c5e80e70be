"""Training: configurations, the loop, evaluation and run folders."""

from evsnn.training.config import DataSettings, RunConfig
from evsnn.training.evaluation import Evaluation, evaluate
from evsnn.training.fit import fit
from evsnn.training.folds import CrossValidation
from evsnn.training.presets import PRESETS, preset
from evsnn.training.run import Run

__all__ = [
    "PRESETS",
    "CrossValidation",
    "DataSettings",
    "Evaluation",
    "Run",
    "RunConfig",
    "evaluate",
    "fit",
    "preset",
]
