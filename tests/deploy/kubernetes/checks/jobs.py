"""That jobs can be run: commands that the code takes, shards that add up, nodes that meet."""

import re
from collections.abc import Iterator

import typer
from typer.main import get_command

from services.cli.main import app
from tests.deploy.kubernetes.environment import environment_of
from tests.deploy.kubernetes.rendering import (
    Object,
    World,
    container_of,
    labels_of,
    matches,
    name_of,
    pod_of,
)

INDEX = "JOB_COMPLETION_INDEX"
# What typer raises for whatever is wrong with arguments.
_UsageError = typer.BadParameter.__mro__[1]


def jobs(world: World) -> Iterator[str]:
    """Each job's command is one, its tries are bounded, and a drained node is none of them."""
    for job in world.all("Job"):
        spec, pod, name = job["spec"], pod_of(job), name_of(job)
        if pod.get("restartPolicy") != "Never":
            yield f"{name}: a policy for failures takes pods that are never restarted"
        actions = {each["action"] for each in spec.get("podFailurePolicy", {}).get("rules", [])}
        if not {"Ignore", "FailJob"} <= actions:
            yield f"{name} counts a drained node as a failure, or a wrong flag as none"
        if not {"backoffLimit", "backoffLimitPerIndex"} & spec.keys():
            yield f"{name} does not say how often it is tried"
        for text in container_of(job).get("args", []):
            for variable in re.findall(r"\$\((\w+)\)", text):
                indexed = variable == INDEX and spec.get("completionMode") == "Indexed"
                if not indexed and variable not in environment_of(world, job):
                    yield f"{name}: $({variable}) is nothing there"
        yield from (f"{name}: {problem}" for problem in _shards(job))
        yield from (f"{name}: {problem}" for problem in _nodes(world, job))
        yield from (f"{name}: {problem}" for problem in _refused(job))


def words(job: Object, index: int = 0) -> list[str]:
    """Command and arguments as the pod of that index gets them."""
    container = container_of(job)
    given = [*container.get("command", ["demiurge"]), *container.get("args", [])]
    return [word.replace(f"$({INDEX})", str(index)) for word in given]


def _shards(job: Object) -> Iterator[str]:
    spec = job["spec"]
    found = [re.fullmatch(r"--shard=(\d+)/(\d+)", word) for word in words(job)]
    for shard in filter(None, found):
        if int(shard[2]) != spec.get("completions"):
            yield f"{shard[2]} shards, and {spec.get('completions')} pods make them"
    if spec.get("completionMode") == "Indexed" and f"$({INDEX})" not in str(container_of(job)):
        yield "every pod does the same"


def _nodes(world: World, job: Object) -> Iterator[str]:
    given = dict(word.split("=", 1) for word in words(job) if word.startswith("--") and "=" in word)
    if words(job)[0] != "torchrun":
        return
    spec, first = job["spec"], f"{job['metadata']['name']}-0"
    if not (given.get("--nnodes") == str(spec["completions"]) == str(spec["parallelism"])):
        yield f"{given.get('--nnodes')} nodes are to meet, and {spec['parallelism']} come"
    host, _, domain = given["--master-addr"].partition(".")
    headless = [
        each
        for each in world.all("Service")
        if each["metadata"]["name"] == domain
        and each["spec"].get("clusterIP") == "None"
        and each["spec"].get("publishNotReadyAddresses")
        and matches(each["spec"]["selector"], labels_of(job))
    ]
    if host != first or pod_of(job).get("subdomain") != domain or not headless:
        yield f"{given['--master-addr']} is not the name of its first pod"
    elif int(given["--master-port"]) not in {p["port"] for p in headless[0]["spec"]["ports"]}:
        yield f"port {given['--master-port']} is not the Service's"


def _refused(job: Object) -> Iterator[str]:
    """What the command line itself has against the arguments."""
    program, *given = words(job)
    if program == "sleep":
        return
    if program == "torchrun":
        given = given[given.index("services.cli.main") + 1 :]
    elif program != "demiurge":
        yield f"{program} is no program of its image"
        return
    command, name = get_command(app), ""
    try:
        while hasattr(command, "resolve_command"):
            name, command, given = command.resolve_command(typer.Context(command), given)
        command.make_context(name, list(given))
    except _UsageError as error:
        yield error.format_message()  # type: ignore[attr-defined]
