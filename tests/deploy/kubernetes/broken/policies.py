"""Policies that let too few or too many through."""

from tests.deploy.kubernetes.broken.mutation import (
    CLUSTER,
    Mutation,
    allowing,
    changed,
    gone,
    named,
)

ANYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}
DESCRIPTOR = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "descriptor"}}}
MUTATIONS = (
    Mutation(
        "the gateway is not let through",
        "policies",
        CLUSTER,
        gone("NetworkPolicy", "called-by-the-gateway"),
    ),
    Mutation("the gateway is not let out", "policies", CLUSTER, gone("NetworkPolicy", "gateway")),
    Mutation(
        "nobody is let out to objects",
        "policies",
        CLUSTER,
        gone("NetworkPolicy", "external-objects"),
    ),
    Mutation(
        "query is not let out to vectors",
        "policies",
        CLUSTER,
        gone("NetworkPolicy", "external-vectors"),
    ),
    Mutation("names are not found", "policies", CLUSTER, gone("NetworkPolicy", "names")),
    Mutation("metrics are not reached", "policies", CLUSTER, gone("NetworkPolicy", "metrics")),
    Mutation(
        "Envoy cannot ask who is ready",
        "policies",
        CLUSTER,
        lambda world: world.one("NetworkPolicy", "services")["spec"]["ingress"][0]["ports"].pop(),
    ),
    Mutation(
        "nobody is let in to Envoy",
        "policies",
        CLUSTER,
        lambda world: world.one("NetworkPolicy", "envoy")["spec"]["ingress"].clear(),
    ),
    Mutation(
        "what no policy is about is open",
        "policies",
        CLUSTER,
        gone("NetworkPolicy", "nothing-else"),
    ),
    Mutation("torch reaches the vectors", "policies", CLUSTER, allowing("synth", ANYWHERE, 6334)),
    Mutation(
        "one service calls another",
        "policies",
        CLUSTER,
        lambda world: (
            allowing("playback", DESCRIPTOR, 50051)(world),
            world.one("NetworkPolicy", "services")["spec"]["ingress"][0].pop("from"),
        ),
    ),
    Mutation("traces stay here", "policies", CLUSTER, gone("NetworkPolicy", "traces")),
    Mutation(
        "Envoy's traces stay here",
        "policies",
        CLUSTER,
        changed(
            named("NetworkPolicy", "traces"),
            "spec",
            "podSelector",
            {"matchLabels": {"app.kubernetes.io/component": "service"}},
        ),
    ),
    Mutation("pods are let out to everywhere", "bounds", CLUSTER, allowing("synth", ANYWHERE, 443)),
    Mutation(
        "pods are let out to whomever",
        "bounds",
        CLUSTER,
        lambda world: world.one("NetworkPolicy", "external-objects")["spec"]["egress"][0].pop("to"),
    ),
    Mutation(
        "nodes of a training are parted", "policies", CLUSTER, gone("NetworkPolicy", "train-nodes")
    ),
)
