"""Figures and the report. Needs the extra `plot`; matplotlib loads at the first use."""

from ._clustering_display import clustering_display as clustering_display
from ._comparison import sigma_comparison as sigma_comparison
from ._curves import (
    arcs_to_radii as arcs_to_radii,
    covariance_ellipse as covariance_ellipse,
    helix_points as helix_points,
)
from ._event_display import event_display as event_display
from ._flight_resolution import (
    binned_quantiles as binned_quantiles,
    flight_resolution as flight_resolution,
)
from ._histogram import (
    RatioTemplates as RatioTemplates,
    ratio_histogram as ratio_histogram,
)
from ._jet_display import jet_display as jet_display
from ._mass import mass_distribution as mass_distribution
from ._moments import moments as moments
from ._pulls import (
    TRACK_PULLS as TRACK_PULLS,
    VERTEX_PULLS as VERTEX_PULLS,
    pull_plot as pull_plot,
)
from ._ratio_checks import (
    calibration_plot as calibration_plot,
    closure_plot as closure_plot,
    profile_scan_plot as profile_scan_plot,
)
from ._report import write_report as write_report
from ._resolution import resolution_plot as resolution_plot
from ._roc import roc_curve as roc_curve, roc_points as roc_points
from ._table import GradientRow as GradientRow, gradient_table as gradient_table
from ._training import loss_curve as loss_curve
from ._trajectories import parameter_trajectories as parameter_trajectories
