"""Encoders: images to events."""

from evsnn.encoders.encode import Encoder
from evsnn.encoders.settings import AugmentSettings, EncoderSettings, SaccadeSettings

__all__ = ["AugmentSettings", "Encoder", "EncoderSettings", "SaccadeSettings"]
