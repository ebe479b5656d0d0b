"""The few figures that a summary shows, picked out of all metrics, with what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Headline:
    """One figure for a summary: where it comes from, its value, and what it means."""

    key: str
    label: str
    value: float
    meaning: str


def headline(metrics: dict[str, Any]) -> list[Headline]:
    """Pick the main figures out of what `evaluate` returned; those not measured are left out."""
    rows = []
    for key, label, meaning in _HEADLINES:
        value: Any = metrics
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, float):
            rows.append(Headline(key, label, value, meaning))
    return rows


_HEADLINES = (
    (
        "gmm_20_rms_10.population.nmi",
        "NMI, populations",
        "Information that 20 blind clusters share with the population labels; 1 is perfect.",
    ),
    (
        "superpopulation_oracle.nmi",
        "NMI of superpopulations alone",
        "What knowing the superpopulation only would score: the bar for the line above.",
    ),
    (
        "gmm_20_rms_10.population.purity",
        "Purity, populations",
        "Share of samples that carry the commonest population of their cluster.",
    ),
    (
        "purity_ceiling_population.purity",
        "Purity ceiling",
        "The best that any 20 clusters could reach against these labels.",
    ),
    (
        "gmm_superpopulation_rms_10.nmi",
        "NMI, superpopulations",
        "The same with one cluster a superpopulation; 1 is perfect.",
    ),
    (
        "knn_population.accuracy",
        "Neighbour accuracy, populations",
        "How often a sample's 15 nearest neighbours vote for its own population.",
    ),
    (
        "knn_superpopulation.accuracy",
        "Neighbour accuracy, superpopulations",
        "How often a sample's 15 nearest neighbours vote for its own superpopulation.",
    ),
    (
        "held_out_knn_population.accuracy",
        "Neighbour accuracy, populations, held-out",
        "The same for samples the model never saw, voted by training samples.",
    ),
    (
        "held_out_knn_superpopulation.accuracy",
        "Neighbour accuracy, superpopulations, held-out",
        "The same for samples the model never saw, voted by training samples.",
    ),
    (
        "held_out_classes.accuracy",
        "Accuracy of classes, held-out",
        "How often the likeliest class is the label of a sample whose label was not learnt from.",
    ),
    (
        "fst_rank_correlation.spearman",
        "FST rank correlation",
        "Do distances on the map order pairs of populations as genetic distance (FST) does?",
    ),
    (
        "gmm_20_rms_10.silhouette",
        "Silhouette of clusters",
        "How separate the blind clusters are, -1 to 1; needs no labels.",
    ),
)
