"""What a person looks at: reports, strips, grids, heat maps, box plots. matplotlib loads at the first of them."""

from nulltext.plots.heat import difference_map, heat_colours, heat_map, heat_over, side_by_side
from nulltext.plots.report import box_plot, grid, report, strip

__all__ = [
    "box_plot",
    "difference_map",
    "grid",
    "heat_colours",
    "heat_map",
    "heat_over",
    "report",
    "side_by_side",
    "strip",
]
