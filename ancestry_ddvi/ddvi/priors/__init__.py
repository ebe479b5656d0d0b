"""Priors p(z), each with an exact density, draws and a partition into classes."""

from ancestry_ddvi.ddvi.priors.base import (
    ComponentPrior,
    NormalComponents,
    PartitionedPrior,
    Prior,
    check_label,
    check_methods,
    check_prior,
    check_prior_calls,
    check_shape,
)
from ancestry_ddvi.ddvi.priors.gaussian import GaussianPrior
from ancestry_ddvi.ddvi.priors.mixture import FixedMixturePrior, MixturePrior
from ancestry_ddvi.ddvi.priors.pinwheel import PinwheelPrior
from ancestry_ddvi.ddvi.priors.square import SquarePrior
from ancestry_ddvi.ddvi.priors.swiss_roll import SwissRollPrior
from ancestry_ddvi.ddvi.priors.table import (
    PRIORS,
    check_named_prior,
    clustered_prior,
    count_clusters,
    make_prior,
)
from ancestry_ddvi.ddvi.priors.vamp import Encoder, VampPrior

__all__ = [
    "PRIORS",
    "ComponentPrior",
    "Encoder",
    "FixedMixturePrior",
    "GaussianPrior",
    "MixturePrior",
    "NormalComponents",
    "PartitionedPrior",
    "PinwheelPrior",
    "Prior",
    "SquarePrior",
    "SwissRollPrior",
    "VampPrior",
    "check_label",
    "check_methods",
    "check_named_prior",
    "check_prior",
    "check_prior_calls",
    "check_shape",
    "clustered_prior",
    "count_clusters",
    "make_prior",
]
