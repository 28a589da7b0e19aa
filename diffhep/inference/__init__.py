"""Event selection, density ratios, binned likelihoods, expected uncertainties.

Which precision: the networks may run in 32 bits, but the likelihood runs in 64 wherever
JAX has them (`jax_enable_x64`). Without them it runs in 32, with three to four digits.
"""

from ._abcd import AbcdEstimate as AbcdEstimate, abcd as abcd
from ._binned_model import (
    BinnedModel as BinnedModel,
    expected_yields as expected_yields,
    interpolate as interpolate,
    likelihood_change as likelihood_change,
    negative_log_likelihood as negative_log_likelihood,
)
from ._bins import (
    AbstractBins as AbstractBins,
    HardBins as HardBins,
    Histogram as Histogram,
    KernelBins as KernelBins,
    SoftBins as SoftBins,
    fill_histogram as fill_histogram,
)
from ._bootstrap import (
    Comparison as Comparison,
    bootstrap as bootstrap,
    compare as compare,
)
from ._calibrated import (
    AbstractCalibration as AbstractCalibration,
    PiecewiseCalibration as PiecewiseCalibration,
    histogram_calibration as histogram_calibration,
    isotonic_calibration as isotonic_calibration,
    mean_ratio as mean_ratio,
)
from ._codes import (
    AbstractCode as AbstractCode,
    AbstractNormCode as AbstractNormCode,
    AbstractShapeCode as AbstractShapeCode,
    Code0 as Code0,
    Code1 as Code1,
    Code2 as Code2,
    Code4 as Code4,
    Code4p as Code4p,
    Parabola as Parabola,
)
from ._cross_entropy import cross_entropy as cross_entropy
from ._decorrelation import distance_correlation as distance_correlation
from ._energy_scale import jet_weight as jet_weight, scale_jets as scale_jets
from ._event_source import (
    AbstractEventSource as AbstractEventSource,
    EventBatch as EventBatch,
    StoredEvents as StoredEvents,
    VariedEvents as VariedEvents,
)
from ._fit import BinnedLikelihood as BinnedLikelihood, fit as fit
from ._flax import FlaxNetwork as FlaxNetwork
from ._hypothesis import (
    HypothesisTest as HypothesisTest,
    hypothesis_test as hypothesis_test,
)
from ._impacts import Impacts as Impacts, impacts as impacts
from ._learnt_ratio import (
    NetworkRatio as NetworkRatio,
    RatioEnsemble as RatioEnsemble,
    SoftmaxRatio as SoftmaxRatio,
    Standardisation as Standardisation,
)
from ._likelihood import (
    AbstractLikelihood as AbstractLikelihood,
    Derivatives as Derivatives,
    FunctionLikelihood as FunctionLikelihood,
)
from ._limits import (
    ProfileScan as ProfileScan,
    UpperLimit as UpperLimit,
    profile_interval as profile_interval,
    profile_scan as profile_scan,
    upper_limit as upper_limit,
)
from ._measurement import (
    Measurement as Measurement,
    asimov_uncertainty as asimov_uncertainty,
    fit_measurement as fit_measurement,
)
from ._mixture import (
    AbstractMixture as AbstractMixture,
    Addition as Addition,
    Interference as Interference,
)
from ._newton import (
    FitResult as FitResult,
    FitStatus as FitStatus,
    fit_likelihood as fit_likelihood,
)
from ._neyman import (
    NeymanInterval as NeymanInterval,
    neyman_interval as neyman_interval,
)
from ._polynomial_ratio import (
    Polynomial as Polynomial,
    PolynomialRatio as PolynomialRatio,
)
from ._ratio import EstimateRatio as EstimateRatio
from ._ratio_loss import (
    BinaryRatioLoss as BinaryRatioLoss,
    EnsembleLoss as EnsembleLoss,
    SoftmaxRatioLoss as SoftmaxRatioLoss,
)
from ._reweighting import (
    Calibration as Calibration,
    Closure as Closure,
    Measured as Measured,
    Overtraining as Overtraining,
    Scores as Scores,
    calibration_curve as calibration_curve,
    closure as closure,
    effective_sample_size as effective_sample_size,
    normalisation as normalisation,
    overtraining as overtraining,
    reweight as reweight,
)
from ._select import (
    SelectEvents as SelectEvents,
    SelectHard as SelectHard,
    hard_selection as hard_selection,
    soft_selection as soft_selection,
)
from ._summary import (
    PairScore as PairScore,
    num_features as num_features,
    pair_probabilities as pair_probabilities,
    summarise as summarise,
)
from ._templates import (
    Analysis as Analysis,
    Contributions as Contributions,
    fill_templates as fill_templates,
    find_contributions as find_contributions,
    sample_uncertainty as sample_uncertainty,
    templates as templates,
)
from ._test_statistics import (
    AbstractOneSidedStatistic as AbstractOneSidedStatistic,
    AbstractTestStatistic as AbstractTestStatistic,
    BoundedLimitTest as BoundedLimitTest,
    BoundedTwoSidedTest as BoundedTwoSidedTest,
    DiscoveryTest as DiscoveryTest,
    LimitTest as LimitTest,
    TwoSidedTest as TwoSidedTest,
    deviance as deviance,
    profile_statistic as profile_statistic,
)
from ._toy_limit import ToyLimit as ToyLimit, toy_upper_limit as toy_upper_limit
from ._toy_test import (
    ToyTest as ToyTest,
    toy_hypothesis_test as toy_hypothesis_test,
)
from ._toys import fit_toys as fit_toys
from ._unbinned import UnbinnedLikelihood as UnbinnedLikelihood
from ._uncertainty import (
    discovery_significance as discovery_significance,
    expected_uncertainty as expected_uncertainty,
)
