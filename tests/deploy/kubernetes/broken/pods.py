"""Pods that could not work, or could do too much."""

from tests.deploy.kubernetes.broken.mutation import (
    CLUSTER,
    LOCAL,
    Mutation,
    changed,
    container,
    named,
    pod,
    settings,
    variable,
    volume,
    without,
)
from tests.deploy.kubernetes.rendering import pod_of

MUTATIONS = (
    Mutation(
        "a pod may be root",
        "security",
        LOCAL,
        without(pod("synth"), "securityContext", "runAsNonRoot"),
    ),
    Mutation(
        "a pod is root",
        "security",
        LOCAL,
        changed(pod("minio", "StatefulSet"), "securityContext", "runAsUser", 0),
    ),
    Mutation(
        "system calls are not filtered",
        "security",
        LOCAL,
        without(pod("envoy"), "securityContext", "seccompProfile"),
    ),
    Mutation(
        "capabilities are kept",
        "security",
        LOCAL,
        changed(container("query"), "securityContext", "capabilities", "drop", ["NET_RAW"]),
    ),
    Mutation(
        "privileges can be gained",
        "security",
        CLUSTER,
        without(container("train", "Job"), "securityContext", "allowPrivilegeEscalation"),
    ),
    Mutation(
        "an image can be written to",
        "security",
        LOCAL,
        changed(container("synth"), "securityContext", "readOnlyRootFilesystem", False),
    ),
    Mutation(
        "a folder of the node is mounted",
        "security",
        LOCAL,
        lambda world: pod_of(world.one("Deployment", "synth"))["volumes"].append(
            {"name": "host", "hostPath": {"path": "/"}}
        ),
    ),
    Mutation(
        "the network is the node's", "security", LOCAL, changed(pod("envoy"), "hostNetwork", True)
    ),
    Mutation(
        "the namespace takes any pod",
        "security",
        LOCAL,
        without(
            named("Namespace", "demiurge"),
            "metadata",
            "labels",
            "pod-security.kubernetes.io/enforce",
        ),
    ),
    Mutation(
        "a mount has no volume",
        "volumes",
        LOCAL,
        changed(container("synth"), "volumeMounts", 0, "name", "temporary"),
    ),
    Mutation(
        "a disk can be filled",
        "volumes",
        LOCAL,
        without(volume("synth", "scratch"), "emptyDir", "sizeLimit"),
    ),
    Mutation(
        "files take the memory",
        "volumes",
        LOCAL,
        changed(volume("synth", "tmp"), "emptyDir", "sizeLimit", "6Gi"),
    ),
    Mutation(
        "sounds have no room",
        "writable",
        LOCAL,
        changed(container("playback"), "volumeMounts", 1, "mountPath", "/spool"),
    ),
    Mutation(
        "sounds are kept in memory",
        "writable",
        LOCAL,
        changed(volume("descriptor", "scratch"), "emptyDir", "medium", "Memory"),
    ),
    Mutation(
        "a home is read only",
        "writable",
        LOCAL,
        changed(container("query"), "volumeMounts", 2, "readOnly", True),
    ),
    Mutation(
        "what was compiled is hidden",
        "writable",
        LOCAL,
        lambda world: container("descriptor")(world)["volumeMounts"].append(
            {"name": "tmp", "mountPath": "/var/cache"}
        ),
    ),
    Mutation(
        "a probe asks the port of calls",
        "probes",
        LOCAL,
        changed(container("synth"), "readinessProbe", "grpc", "port", 50051),
    ),
    Mutation(
        "readiness is asked as liveness",
        "probes",
        LOCAL,
        changed(container("synth"), "readinessProbe", "grpc", "service", "liveness"),
    ),
    Mutation(
        "a service that waits is killed",
        "probes",
        LOCAL,
        changed(container("query"), "livenessProbe", "grpc", "service", "readiness"),
    ),
    Mutation(
        "a probe asks for what is not served",
        "probes",
        LOCAL,
        changed(container("synth"), "startupProbe", "grpc", "service", "started"),
    ),
    Mutation(
        "nobody asks whether it is ready",
        "probes",
        LOCAL,
        without(container("gateway"), "readinessProbe"),
    ),
    Mutation("health is served elsewhere", "probes", LOCAL, settings(DEMIURGE_HEALTH_PORT="50052")),
    Mutation(
        "metrics are served elsewhere", "probes", LOCAL, settings(DEMIURGE_METRICS_PORT="9465")
    ),
    Mutation(
        "a store is asked at no port of it",
        "probes",
        LOCAL,
        changed(container("minio", "StatefulSet"), "readinessProbe", "httpGet", "port", "console"),
    ),
    Mutation(
        "SIGKILL comes before calls are over",
        "stops",
        LOCAL,
        changed(pod("synth"), "terminationGracePeriodSeconds", 30),
    ),
    Mutation(
        "calls may take longer than the grace",
        "stops",
        LOCAL,
        settings(DEMIURGE_DRAIN_SECONDS="120"),
    ),
    Mutation(
        "SIGTERM comes before clients hear",
        "stops",
        LOCAL,
        without(container("gateway"), "lifecycle"),
    ),
    Mutation(
        "memory has no end",
        "resources",
        LOCAL,
        without(container("gateway"), "resources", "limits", "memory"),
    ),
    Mutation(
        "more is needed than allowed",
        "resources",
        LOCAL,
        changed(container("gateway"), "resources", "requests", "memory", "64Gi"),
    ),
    Mutation("a GPU is sought anywhere", "gpus", CLUSTER, without(pod("synth"), "affinity")),
    Mutation("GPU nodes keep it out", "gpus", CLUSTER, without(pod("train", "Job"), "tolerations")),
    Mutation(
        "a GPU is not used",
        "gpus",
        CLUSTER,
        variable("predictor", "DEMIURGE_PREDICTOR_DEVICE", "cpu"),
    ),
    Mutation(
        "a GPU is used and not given",
        "gpus",
        LOCAL,
        variable("synth", "DEMIURGE_SYNTH_DEVICE", "cuda"),
    ),
)
