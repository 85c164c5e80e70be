"""Networks: layers in a row, and their simulation."""

from evsnn.network.architecture import Architecture, parse_architecture
from evsnn.network.network import Network, Record
from evsnn.network.settings import NetworkSettings
from evsnn.network.simulation import Pass, Simulator

__all__ = ["Architecture", "Network", "NetworkSettings", "Pass", "Record", "Simulator", "parse_architecture"]
