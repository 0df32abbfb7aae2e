"""That every variable is a setting, with a value that can be, and leads to what is there."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from services.errors import ConfigurationError
from services.runtime.security import checked_bind
from services.runtime.settings import NOUNS, RuntimeSettings, S3Settings, ServiceSettings, load
from tests.deploy.kubernetes.environment import environment_of, inside
from tests.deploy.kubernetes.rendering import (
    Object,
    World,
    component_of,
    container_of,
    labels_of,
    matches,
    name_of,
    pod_of,
)

DEFAULT_PORTS = {"http": 80, "https": 443}
BOTH_ENDS = {"server auth", "client auth"}


def settings_of(noun: str) -> type[ServiceSettings]:
    """The class of DEMIURGE_<NOUN>_…"""
    module = import_module(f"services.{noun}.settings")
    return getattr(module, f"{noun.title()}Settings")  # type: ignore[no-any-return]


def settings(world: World) -> Iterator[str]:
    """Each service and job starts with its environment, as the code itself judges."""
    for workload in world.workloads():
        if component_of(workload) not in {"service", "job"}:
            continue
        environment = environment_of(world, workload)
        with inside(environment):
            for kind in (RuntimeSettings, S3Settings, *map(settings_of, NOUNS)):
                try:
                    load(kind)
                except ConfigurationError as error:
                    yield f"{name_of(workload)}: {error.message}"
            yield from (f"{name_of(workload)}: {problem}" for problem in _refusals(workload))


def _refusals(workload: Object) -> Iterator[str]:
    """What a start would refuse beside single values."""
    try:
        runtime = load(RuntimeSettings)
        if component_of(workload) == "service":
            checked_bind(runtime)
            endpoint = load(S3Settings).endpoint
            if not runtime.allow_insecure_bind and not endpoint.startswith("https:"):
                yield f"sounds go to {endpoint} unprotected, beside TLS"
        if workload["metadata"]["name"] == "query":
            with TemporaryDirectory() as folder:
                key = Path(folder, "key")
                key.write_text("key")
                query = load(settings_of("query")).model_copy(update={"api_key_file": key})
                query.api_key(allow_unprotected=runtime.allow_insecure_bind)  # type: ignore[attr-defined]
    except ConfigurationError as error:
        yield error.message


def addresses(world: World) -> Iterator[str]:
    """Every address that is called is a Service with that port, or outside the cluster."""
    for workload in world.workloads():
        for variable, host, port in called_by(environment_of(world, workload)):
            if "." in host:
                continue
            services = [s for s in world.all("Service") if s["metadata"]["name"] == host]
            ports = {p["port"] for service in services for p in service["spec"]["ports"]}
            if port not in ports:
                yield f"{name_of(workload)}: {variable} is {host}:{port}, which no Service has"
    for noun in NOUNS:
        if noun == "gateway":
            continue
        if not environment_of(world, world.one("Deployment", "gateway")).get(
            f"DEMIURGE_{noun.upper()}_ADDRESS"
        ):
            yield f"the gateway does not know where {noun} is"


def called_by(environment: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Variable, host and port of each address in an environment."""
    for variable, value in environment.items():
        if variable.endswith("_ADDRESS") and variable != "DEMIURGE_BIND_ADDRESS":
            host, _, port = value.rpartition(":")
            yield variable, host, int(port)
        elif variable.startswith("DEMIURGE_") and value.startswith("http"):
            parts = urlsplit(value)
            yield variable, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    if environment.get("DEMIURGE_QUERY_URL"):
        host = urlsplit(environment["DEMIURGE_QUERY_URL"]).hostname or ""
        yield (
            "DEMIURGE_QUERY_GRPC_PORT",
            host,
            int(environment.get("DEMIURGE_QUERY_GRPC_PORT", 6334)),
        )


def references(world: World) -> Iterator[str]:
    """Every ConfigMap and Secret that a pod names is there, or promised, with the keys it uses."""
    known = _known(world)
    for workload in world.workloads():
        for kind, name, keys, optional in _named(workload):
            if (kind, name) not in known and optional:
                continue
            if (kind, name) not in known:
                yield f"{name_of(workload)} names {kind}/{name}, which nobody makes"
            elif missing := keys - known[kind, name]:
                yield f"{name_of(workload)}: {kind}/{name} has no {sorted(missing)}"


def _known(world: World) -> dict[tuple[str, str], frozenset[str]]:
    """Keys of all ConfigMaps and Secrets, those included that the user or cert-manager makes."""
    found = {("Secret", name): keys for name, keys in world.promised.items()}
    for each in world.all("ConfigMap", "Secret"):
        keys = frozenset({*each.get("data", {}), *each.get("binaryData", {})})
        found[each["kind"], each["metadata"]["name"]] = keys
    for each in world.all("Certificate"):
        made = frozenset({"tls.crt", "tls.key", "ca.crt"})
        found["Secret", each["spec"]["secretName"]] = made
    return found


def _named(workload: Object) -> Iterator[tuple[str, str, frozenset[str], bool]]:
    """Kind, name and keys of what a pod needs, and whether it starts without."""
    none: frozenset[str] = frozenset()
    container = container_of(workload)
    for source in container.get("envFrom", []):
        yield "ConfigMap", source["configMapRef"]["name"], none, False
    for variable in container.get("env", []):
        for kind in ("Secret", "ConfigMap"):
            key = f"{kind[0].lower()}{kind[1:]}KeyRef"
            if reference := variable.get("valueFrom", {}).get(key):
                yield kind, reference["name"], frozenset({reference["key"]}), False
    for kind, name, items, optional in _sources(workload):
        yield kind, name, frozenset(item["key"] for item in items), optional


def _sources(workload: Object, mount: str = "") -> Iterator[tuple[str, str, list[Object], bool]]:
    """Kind, name, items and `optional` of what is mounted, of one volume only if it is named."""
    for volume in pod_of(workload).get("volumes", []):
        if mount and volume["name"] != mount:
            continue
        for source in volume.get("projected", {}).get("sources", [volume]):
            if secret := source.get("secret"):
                name = secret.get("name") or secret["secretName"]
                yield "Secret", name, secret.get("items", []), secret.get("optional", False)
            elif configuration := source.get("configMap"):
                yield "ConfigMap", configuration["name"], configuration.get("items", []), False


def files(world: World) -> Iterator[str]:
    """Every file that a variable or command names is in a volume, under that name, and needed."""
    known = _known(world)
    for workload in world.workloads():
        container, there, secrets = container_of(workload), set(), set()
        for mount in container.get("volumeMounts", []):
            for kind, name, items, optional in _sources(workload, mount["name"]):
                if optional and (kind, name) not in known:
                    continue
                paths = [item["path"] for item in items] or known.get((kind, name), [])
                found = {f"{mount['mountPath']}/{path}" for path in paths}
                there |= found
                secrets |= found if kind == "Secret" and not optional else set()
        words = {**environment_of(world, workload)}
        command = [*container.get("command", []), *container.get("args", [])]
        words |= {path: path for path in re.findall(r"/(?:run|etc)/[\w./-]+", " ".join(command))}
        named = {v for v in words.values() if v.startswith(("/run/", "/etc/"))}
        own = component_of(workload) in {"service", "job"}
        if own and workload["metadata"]["name"] != "query":
            # One ConfigMap for all: the key to the vectors is given to query alone.
            named.discard(words.get("DEMIURGE_QUERY_API_KEY_FILE", ""))
        yield from (f"{name_of(workload)}: {path} is not there" for path in sorted(named - there))
        if own:
            spare = secrets - named
            yield from (f"{name_of(workload)} is given {p} for nothing" for p in sorted(spare))


def certificates(world: World) -> Iterator[str]:
    """A certificate bears the names by which its pods are called, for the ends that they are."""
    for workload in world.workloads():
        mounted = {name for kind, name, *_ in _sources(workload, "tls")}
        for certificate in world.all("Certificate"):
            spec = certificate["spec"]
            if spec["secretName"] not in mounted:
                continue
            called = [
                service["metadata"]["name"]
                for service in world.all("Service")
                if matches(service["spec"].get("selector"), labels_of(workload))
            ]
            if component_of(workload) == "proxy":
                called += ["localhost"]
                if not any("." in name and ".svc" not in name for name in spec["dnsNames"]):
                    yield f"{name_of(workload)} has no name outside the cluster"
            if not set(called) <= set(spec["dnsNames"]):
                yield f"{name_of(workload)} is called {called}, not {spec['dnsNames']}"
            ends = {"server auth"} if component_of(workload) == "store" else BOTH_ENDS
            if not ends <= set(spec["usages"]):
                yield f"{name_of(certificate)} is not for {sorted(ends)}"
        if mounted and mounted != {f"{workload['metadata']['name']}-tls"}:
            yield f"{name_of(workload)} has the certificate of another: {mounted}"
