"""Settings that are none, or lead nowhere."""

from tests.deploy.kubernetes.broken.mutation import (
    CLUSTER,
    LOCAL,
    LOCAL_TLS,
    Mutation,
    changed,
    container,
    gone,
    named,
    settings,
    variable,
    volume,
)

MUTATIONS = (
    Mutation(
        "a common setting is misspelt", "settings", LOCAL, settings(DEMIURGE_DRAIN_SECOND="30")
    ),
    Mutation(
        "a setting of a noun is misspelt",
        "settings",
        LOCAL,
        variable("synth", "DEMIURGE_SYNTH_DEVISE", "cpu"),
    ),
    Mutation(
        "a value cannot be", "settings", LOCAL, settings(DEMIURGE_DRAIN_SECONDS="half a minute")
    ),
    Mutation(
        "a device cannot be",
        "settings",
        LOCAL,
        variable("predictor", "DEMIURGE_PREDICTOR_DEVICE", "gpu"),
    ),
    Mutation(
        "anybody may call",
        "settings",
        LOCAL,
        settings(DEMIURGE_TOKEN_FILE=None, DEMIURGE_ALLOW_INSECURE_BIND="false"),
    ),
    Mutation(
        "TLS has lost its certificate",
        "settings",
        CLUSTER,
        settings(DEMIURGE_TLS_CERTIFICATE=None),
    ),
    Mutation(
        "a key goes unprotected",
        "settings",
        CLUSTER,
        settings(DEMIURGE_QUERY_URL="http://qdrant:6333"),
    ),
    Mutation(
        "sounds go unprotected beside TLS",
        "settings",
        LOCAL_TLS,
        changed(named("ConfigMap", "store"), "data", "DEMIURGE_S3_ENDPOINT", "http://minio:9000"),
    ),
    Mutation(
        "the store has no keys",
        "settings",
        LOCAL,
        lambda world: world.one("ConfigMap", "store")["data"].pop("DEMIURGE_S3_SECRET_KEY_FILE"),
    ),
    Mutation(
        "an address is nobody's",
        "addresses",
        LOCAL,
        settings(DEMIURGE_SYNTH_ADDRESS="sinth:50051"),
    ),
    Mutation(
        "a port is nobody's", "addresses", LOCAL, settings(DEMIURGE_QUERY_ADDRESS="query:50055")
    ),
    Mutation(
        "the gateway lacks an address",
        "addresses",
        LOCAL,
        settings(DEMIURGE_PLAYBACK_ADDRESS=None),
    ),
    Mutation("the store is not there", "addresses", LOCAL, gone("Service", "minio")),
    Mutation(
        "Qdrant has no gRPC",
        "addresses",
        LOCAL,
        lambda world: world.one("Service", "qdrant")["spec"]["ports"].pop(),
    ),
    Mutation("a ConfigMap is not there", "references", LOCAL, gone("ConfigMap", "store")),
    Mutation("a Secret is not there", "references", LOCAL, gone("Secret", "vector-index")),
    Mutation(
        "nobody is told to make a Secret",
        "references",
        CLUSTER,
        changed(volume("synth", "secrets"), "projected", "sources", 0, "secret", "name", "bearer"),
    ),
    Mutation("a certificate is not made", "references", CLUSTER, gone("Certificate", "query")),
    Mutation(
        "a key is not in its ConfigMap",
        "references",
        CLUSTER,
        lambda world: world.one("ConfigMap", "envoy-tls")["data"].pop("clusters.yaml"),
    ),
    Mutation(
        "a store is not given its key",
        "files",
        LOCAL,
        changed(volume("qdrant", "secrets", "StatefulSet"), "secret", "secretName", "token"),
    ),
    Mutation(
        "Envoy's files lack one",
        "references",
        CLUSTER,
        lambda world: world.one("ConfigMap", "envoy")["data"].pop("http.yaml"),
    ),
    Mutation(
        "a token is looked for elsewhere",
        "files",
        LOCAL,
        settings(DEMIURGE_PREDICTOR_TOKEN_FILE="/run/secrets/bearer"),  # noqa: S106 - a path
    ),
    Mutation(
        "the key to the vectors is not given",
        "files",
        LOCAL,
        lambda world: volume("query", "secrets")(world)["projected"]["sources"].pop(),
    ),
    Mutation(
        "a key is given to whom it does not serve",
        "files",
        LOCAL,
        lambda world: volume("synth", "secrets")(world)["projected"]["sources"].append(
            {"secret": {"name": "vector-index"}}
        ),
    ),
    Mutation(
        "Envoy starts with a file that is not there",
        "files",
        LOCAL,
        changed(container("envoy"), "command", 2, "/etc/envoy/main.yaml"),
    ),
    Mutation(
        "nobody makes the authority of the store",
        "files",
        LOCAL_TLS,
        gone("Certificate", "store-authority"),
    ),
    Mutation(
        "a job does not know the authority of the store",
        "files",
        LOCAL_TLS,
        lambda world: container("generate", "Job")(world)["volumeMounts"].pop(),
    ),
    Mutation(
        "certificates are mounted elsewhere",
        "files",
        CLUSTER,
        settings(DEMIURGE_TLS_CA="/run/secrets/tls/ca.crt"),
    ),
    Mutation(
        "a certificate bears another name",
        "certificates",
        CLUSTER,
        changed(named("Certificate", "synth"), "spec", "dnsNames", ["synth.local"]),
    ),
    Mutation(
        "Envoy cannot be called through a tunnel",
        "certificates",
        CLUSTER,
        lambda world: world.one("Certificate", "envoy")["spec"]["dnsNames"].remove("localhost"),
    ),
    Mutation(
        "Envoy has no name outside",
        "certificates",
        CLUSTER,
        lambda world: world.one("Certificate", "envoy")["spec"]["dnsNames"].pop(),
    ),
    Mutation(
        "a store shows the name of another",
        "certificates",
        LOCAL_TLS,
        changed(named("Certificate", "minio"), "spec", "dnsNames", ["qdrant"]),
    ),
    Mutation(
        "Envoy's traces have no configuration",
        "references",
        CLUSTER,
        lambda world: world.one("ConfigMap", "envoy")["data"].pop("tracing.yaml"),
    ),
    Mutation(
        "a certificate is for servers alone",
        "certificates",
        CLUSTER,
        lambda world: world.one("Certificate", "gateway")["spec"]["usages"].pop(),
    ),
    Mutation(
        "a service shows another's certificate",
        "certificates",
        CLUSTER,
        changed(volume("synth", "tls"), "secret", "secretName", "query-tls"),
    ),
)
