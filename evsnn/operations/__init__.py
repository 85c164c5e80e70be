"""Operations that a network spends, counted in its simulation (docs/operations.md)."""

from evsnn.operations.counting import LayerOperations, OperationCounts, count_operations
from evsnn.operations.energy import EnergyTable, energy_table
from evsnn.operations.grid import GridMetrics, grid_metrics

__all__ = [
    "EnergyTable",
    "GridMetrics",
    "LayerOperations",
    "OperationCounts",
    "count_operations",
    "energy_table",
    "grid_metrics",
]
