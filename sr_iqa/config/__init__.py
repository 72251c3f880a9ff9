"""Options: the typed vocabulary and how files become it."""

from .document import OptionsError
from .load import Loaded, load, load_options, options_to_yaml
from .models import Component, DataOptions, LoraOptions, Options, RewardOptions, SamplingOptions, TrainDataOptions, TrainOptions
from .vocabulary import did_you_mean

__all__ = [
    "Component",
    "DataOptions",
    "Loaded",
    "LoraOptions",
    "Options",
    "OptionsError",
    "RewardOptions",
    "SamplingOptions",
    "TrainDataOptions",
    "TrainOptions",
    "did_you_mean",
    "load",
    "load_options",
    "options_to_yaml",
]
