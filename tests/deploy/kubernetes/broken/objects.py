"""Objects that no longer fit each other."""

from tests.deploy.kubernetes.broken.mutation import (
    CLUSTER,
    LOCAL,
    Mutation,
    changed,
    container,
    gone,
    named,
    pod,
    without,
)
from tests.deploy.kubernetes.rendering import labels_of

MUTATIONS = (
    Mutation(
        "a Deployment selects nothing",
        "selectors",
        LOCAL,
        changed(
            named("Deployment", "synth"),
            "spec",
            "selector",
            "matchLabels",
            "app.kubernetes.io/name",
            "sinth",
        ),
    ),
    Mutation(
        "a Service selects the pods of another",
        "selectors",
        LOCAL,
        changed(named("Service", "synth"), "spec", "selector", "app.kubernetes.io/name", "query"),
    ),
    Mutation(
        "a Service selects all services",
        "selectors",
        LOCAL,
        changed(
            named("Service", "synth"),
            "spec",
            "selector",
            {"app.kubernetes.io/component": "service"},
        ),
    ),
    Mutation(
        "a job takes calls of a service",
        "selectors",
        CLUSTER,
        lambda world: labels_of(world.one("Job", "generate")).update(
            {"app.kubernetes.io/name": "synth"}
        ),
    ),
    Mutation(
        "a budget selects nothing",
        "selectors",
        LOCAL,
        changed(
            named("PodDisruptionBudget", "query"),
            "spec",
            "selector",
            "matchLabels",
            {"app": "query"},
        ),
    ),
    Mutation(
        "pods are spread by the labels of others",
        "selectors",
        LOCAL,
        changed(
            pod("query"),
            "topologySpreadConstraints",
            0,
            "labelSelector",
            "matchLabels",
            {"app.kubernetes.io/name": "synth"},
        ),
    ),
    Mutation(
        "a Service leads to a port that is not named",
        "ports",
        LOCAL,
        changed(named("Service", "query"), "spec", "ports", 0, "targetPort", "rpc"),
    ),
    Mutation(
        "a Service leads to a number nobody listens on",
        "ports",
        LOCAL,
        changed(named("Service", "envoy"), "spec", "ports", 0, "targetPort", 8080),
    ),
    Mutation(
        "a headless Service has another port",
        "ports",
        LOCAL,
        changed(named("Service", "synth"), "spec", "ports", 0, "port", 80),
    ),
    Mutation(
        "a Service balances connections",
        "ports",
        LOCAL,
        without(named("Service", "synth"), "spec", "clusterIP"),
    ),
    Mutation("a noun is missing", "nouns", LOCAL, gone("Deployment", "playback")),
    Mutation(
        "a service runs the image of another",
        "nouns",
        LOCAL,
        changed(container("synth"), "image", "demiurge/query:0.1.0"),
    ),
    Mutation(
        "an image is of another version",
        "nouns",
        CLUSTER,
        changed(container("synth"), "image", "registry.example.org/demiurge/synth:latest"),
    ),
    Mutation(
        "Envoy is not compose's",
        "nouns",
        LOCAL,
        changed(container("envoy"), "image", "envoyproxy/envoy:v1.30.0"),
    ),
    Mutation(
        "a job pulls a stranger's image",
        "images",
        CLUSTER,
        changed(container("train", "Job"), "image", "demiurge/synth:0.1.0"),
    ),
    Mutation(
        "a registry does not know who pulls",
        "images",
        CLUSTER,
        without(named("ServiceAccount", "shell"), "imagePullSecrets"),
    ),
    Mutation("an account is not there", "accounts", LOCAL, gone("ServiceAccount", "gateway")),
    Mutation(
        "a pod may ask the cluster",
        "accounts",
        LOCAL,
        changed(pod("gateway"), "automountServiceAccountToken", True),
    ),
    Mutation(
        "Services become variables",
        "accounts",
        LOCAL,
        without(pod("synth"), "enableServiceLinks"),
    ),
    Mutation(
        "a budget holds every pod",
        "budgets",
        LOCAL,
        changed(named("PodDisruptionBudget", "synth"), "spec", {"minAvailable": 2}),
    ),
    Mutation(
        "an object is elsewhere",
        "namespaces",
        LOCAL,
        changed(named("Service", "synth"), "metadata", "namespace", "default"),
    ),
    Mutation(
        "a scaler scales nobody",
        "scaling",
        CLUSTER,
        changed(
            named("HorizontalPodAutoscaler", "synth"), "spec", "scaleTargetRef", "name", "sinth"
        ),
    ),
    Mutation(
        "a metric is misspelt",
        "scaling",
        CLUSTER,
        changed(
            named("HorizontalPodAutoscaler", "synth"),
            "spec",
            "metrics",
            0,
            "pods",
            "metric",
            "name",
            "demiurge_queue_waits",
        ),
    ),
    Mutation(
        "replicas are set beside a scaler",
        "scaling",
        CLUSTER,
        changed(named("Deployment", "gateway"), "spec", "replicas", 2),
    ),
    Mutation(
        "replicas go as they come",
        "scaling",
        CLUSTER,
        without(named("HorizontalPodAutoscaler", "synth"), "spec", "behavior", "scaleDown"),
    ),
    Mutation(
        "nothing to scale by is requested",
        "scaling",
        CLUSTER,
        without(container("playback"), "resources", "requests", "cpu"),
    ),
    Mutation(
        "Prometheus asks a port that is not there",
        "monitoring",
        CLUSTER,
        changed(container("envoy"), "ports", 1, "name", "admin"),
    ),
    Mutation(
        "alerts are of yesterday",
        "monitoring",
        CLUSTER,
        lambda world: world.one("PrometheusRule", "demiurge")["spec"]["groups"].pop(),
    ),
    Mutation(
        "a job is alerted of by another name",
        "monitoring",
        CLUSTER,
        changed(named("PodMonitor", "demiurge"), "spec", "jobLabel", "app"),
    ),
)
