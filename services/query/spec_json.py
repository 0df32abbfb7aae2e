"""A collection's specification as JSON text, from which it comes back equal."""

import json

import numpy as np

from services.audio.statistics import FeatureStatistics
from services.query.index import CollectionSpec, Metric, Scaling


def spec_to_json(spec: CollectionSpec) -> str:
    """Numbers are written so that they are read back exactly."""
    moments = spec.statistics
    return json.dumps(
        {
            "feature_names": spec.feature_names,
            "sample_rate_hertz": spec.sample_rate_hertz,
            "hop_length_samples": spec.hop_length_samples,
            "metric": spec.metric.value,
            "scaling": spec.scaling.value,
            "statistics": moments
            and {
                "frame_count": moments.frame_count,
                "means": moments.means.tolist(),
                "variances": moments.variances.tolist(),
            },
        }
    )


def spec_from_json(text: str) -> CollectionSpec:
    """What spec_to_json wrote."""
    fields = json.loads(text)
    names = tuple(fields["feature_names"])
    moments = fields["statistics"]
    return CollectionSpec(
        feature_names=names,
        sample_rate_hertz=fields["sample_rate_hertz"],
        hop_length_samples=fields["hop_length_samples"],
        metric=Metric(fields["metric"]),
        scaling=Scaling(fields["scaling"]),
        statistics=moments
        and FeatureStatistics(
            names,
            moments["frame_count"],
            np.array(moments["means"]),
            np.array(moments["variances"]),
        ),
    )
