"""Ways to break the manifests, each by one small change, and the check that has to notice."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.deploy.kubernetes.rendering import Object, World, container_of, pod_of


class Mutation(NamedTuple):
    """What is broken, by name; the check; the overlay; and how."""

    what: str
    check: str
    overlay: str
    apply: Callable[[World], object]


def container(name: str, kind: str = "Deployment") -> Callable[[World], Object]:
    return lambda world: container_of(world.one(kind, name))


def pod(name: str, kind: str = "Deployment") -> Callable[[World], Object]:
    return lambda world: pod_of(world.one(kind, name))


def changed(find: Callable[[World], Object], *path: Any) -> Callable[[World], object]:
    """Puts the last word of the path where the others lead."""

    def apply(world: World) -> None:
        *above, key, value = path
        place: Any = find(world)
        for step in above:
            place = place[step]
        assert value != (place.get(key) if isinstance(place, dict) else place[key])
        place[key] = value

    return apply


def without(find: Callable[[World], Object], *path: Any) -> Callable[[World], object]:
    """Takes away what the path leads to."""

    def apply(world: World) -> None:
        *above, key = path
        place: Any = find(world)
        for step in above:
            place = place[step]
        del place[key]

    return apply


def named(kind: str, name: str) -> Callable[[World], Object]:
    return lambda world: world.one(kind, name)


def gone(kind: str, name: str) -> Callable[[World], object]:
    return lambda world: world.remove(kind, name)


def settings(**changes: str | None) -> Callable[[World], object]:
    """Variables of the ConfigMap `settings`; None takes one away."""

    def apply(world: World) -> None:
        data = world.one("ConfigMap", "settings")["data"]
        for name, value in changes.items():
            if value is None:
                del data[name]
            else:
                data[name] = value

    return apply


def variable(workload: str, variable: str, value: str) -> Callable[[World], object]:
    return lambda world: (
        container_of(world.one("Deployment", workload))
        .setdefault("env", [])
        .append({"name": variable, "value": value})
    )


def allowing(name: str, to: Object, port: int) -> Callable[[World], object]:
    """Lets the pods of this name out to others."""

    def apply(world: World) -> None:
        policy = {
            "kind": "NetworkPolicy",
            "metadata": {"name": "more"},
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [to], "ports": [{"port": port}]}],
            },
        }
        world.objects.append(policy)

    return apply


def volume(workload: str, name: str, kind: str = "Deployment") -> Callable[[World], Object]:
    def find(world: World) -> Object:
        [found] = [v for v in pod_of(world.one(kind, workload))["volumes"] if v["name"] == name]
        return found  # type: ignore[no-any-return]

    return find


def replaced(job: str, old: str, new: str) -> Callable[[World], object]:
    """Another word among a job's arguments."""

    def apply(world: World) -> None:
        args = container_of(world.one("Job", job))["args"]
        assert any(old in word for word in args)
        args[:] = [word.replace(old, new) for word in args]

    return apply


LOCAL, LOCAL_TLS, CLUSTER = "local", "local-tls", "gpu-cluster"
