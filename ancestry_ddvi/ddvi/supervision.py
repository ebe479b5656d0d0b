"""Learning from the labels that some samples have.

    p(l, z)      a class l is a part of the prior: some components, an arm, a side (`priors.base`)
    q(l | x)     a network
    q(z, l | x)  = q(l | x) q(z | x)

    labelled     log p(x, l) >= E_q(z|x)[ log p(x | z) - log q(z | x) + log p(l, z) ]
    unlabelled   log p(x)    >= E_q(z|x)[ log p(x | z) - log q(z | x)
                                          + sum_l q(l | x) ( log p(l, z) - log q(l | x) ) ]
                              = bound without labels - E_q(z|x) KL( q(l | x) || p(l | z) )
    minimised    minus these bounds, and class_weight times minus
                     mean of log q(l | x) over the n labelled + log N(W; 0, s^2 I) / n
                 W the weights of q(l | x): the most probable ones, and few labels move them little

Kingma, Rezende, Mohamed & Welling 2014 (NeurIPS, eqs. 6 to 9) with the label in the prior, as
Piriyakulkij, Wang & Kuleshov 2025 have it: x depends on l through z only. The sum over labels of an
unlabelled sample is exact. Neither network sees a label, so labelled, unlabelled and new samples
are placed alike. The second form of the unlabelled bound says what ties map and classifier: where
they disagree on a sample, one of them has to move.

Which parts of the prior make up a class is read off the young map: it has a topology by then, and
classes that were dealt out blindly could not change places on it. With r_kl the share of the
probability of class l that lies in cluster k, each class is given a cluster of its own so that
sum_l r_{k(l) l} is largest (Kuhn 1955), and any further cluster goes to the class that it holds
most of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ancestry_ddvi.ddvi.networks import FeatureInput, mlp
from ancestry_ddvi.errors import OptionError

UNLABELLED = -1
"""Stands for a label that is not known."""


WEIGHT_SD = 0.7
"""s: of .1, .3, .5, .7, 1, 1.5 the one of least log loss on simulated samples without labels."""


class Classifier(nn.Module):
    """log q(l | x): linear in the features, and a network for what is not.

    Parameters
    ----------
    inputs
        Feature scaling.
    n_classes, n_hidden
        Number of labels, and the width of the hidden layers.
    """

    def __init__(self, inputs: FeatureInput, n_classes: int, n_hidden: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.linear = nn.Linear(inputs.n_out, n_classes, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.network = mlp(inputs.n_out, n_classes, n_hidden, zero_output=True)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(..., n_classes) in nats for x (..., K), noise (...,)."""
        h = self.inputs(x, noise)
        return torch.log_softmax(self.linear(h) + self.network(h), dim=-1)

    def log_weight_prior(self) -> Tensor:
        """log N(W; 0, s^2 I) up to a constant; biases are free."""
        weights = [w for name, w in self.named_parameters() if name.endswith("weight")]
        return -0.5 * torch.stack([w.square().sum() for w in weights]).sum() / WEIGHT_SD**2


def log_prior_of_label(joint: Tensor, log_q: Tensor, label: Tensor) -> Tensor:
    """What takes the place of log p(z) in the bound, (..., n) in nats.

    Parameters
    ----------
    joint
        (..., n, n_classes) log p(l, z), `PartitionedPrior.class_log_prob`.
    log_q
        (n, n_classes) log q(l | x).
    label
        (n,) long, `UNLABELLED` where it is not known.
    """
    known = label != UNLABELLED
    at = label.clamp(min=0).unsqueeze(-1).expand(*joint.shape[:-1], 1)
    labelled = torch.take_along_dim(joint, at, dim=-1).squeeze(-1)
    summed = (log_q.exp() * (joint - log_q)).sum(-1)
    return torch.where(known, labelled, summed)


def match_classes(cluster: Tensor, log_q: Tensor, label: Tensor) -> Tensor:
    """(n_clusters,) the class of each cluster, see the module's equations.

    Parameters
    ----------
    cluster
        (n, n_clusters) probability of each cluster.
    log_q, label
        See `log_prior_of_label`.
    """
    from scipy.optimize import linear_sum_assignment

    n_classes = log_q.shape[-1]
    q = log_q.exp()
    q = torch.where((label != UNLABELLED).unsqueeze(-1), one_hot(label.clamp(min=0), n_classes), q)
    mass = cluster.double().T @ q.double()
    of_cluster = mass.argmax(dim=1)
    own, of_class = linear_sum_assignment((mass / mass.sum(0)).numpy(), maximize=True)
    of_cluster[torch.as_tensor(own)] = torch.as_tensor(of_class)
    return of_cluster


def check_enough(n_clusters: int, n_classes: int) -> None:
    """Raise OptionError if there are fewer clusters than classes."""
    if n_clusters < n_classes:
        raise OptionError(
            f"the prior has {n_clusters} clusters, too few for {n_classes} classes of labels; "
            "raise the number of clusters (--n-clusters, n_clusters), or choose another prior or "
            "coarser labels"
        )
