"""Kubernetes' own schemas, of several versions, strictly: no unknown field, no wrong type."""

from collections.abc import Iterator
from functools import cache

from jsonschema import Draft202012Validator
from kubernetes_validate import SchemaNotFoundError, utils
from packaging.version import Version
from referencing import Registry, Resource

from tests.deploy.kubernetes.rendering import Object, name_of

OLDEST = Version("1.31")
VERSIONS = sorted(
    {utils.major_minor(each) for each in utils.all_versions() if Version(each) >= OLDEST},
    key=Version,
)
# Of cert-manager and the Prometheus Operator, whose schemas come with them.
FOREIGN = ("cert-manager.io/v1", "monitoring.coreos.com/v1")


def problems(thing: Object, version: str) -> Iterator[str]:
    """What that version has against the object, by the field's path."""
    if thing["apiVersion"] in FOREIGN:
        return
    for error in _validator(thing["kind"], thing["apiVersion"], version).iter_errors(thing):
        yield f"{name_of(thing)}: {'.'.join(map(str, error.path))}: {error.message[:200]}"


@cache
def _validator(kind: str, api_version: str, version: str) -> Draft202012Validator:
    """As kubernetes_validate.validate makes it, which reads the schemas anew for each object."""
    [exact] = {each for each in utils.all_versions() if utils.major_minor(each) == version}
    folder = f"kubernetes-json-schema/v{exact}-local-strict"
    group = api_version.partition("/")
    suffix = f"{group[0].partition('.')[0]}-{group[2]}" if group[2] else group[0]
    try:
        schema = utils.schema_contents(f"{folder}/{kind.lower()}-{suffix}.json", version)
    except FileNotFoundError:
        raise SchemaNotFoundError(kind, version, api_version) from None
    return Draft202012Validator(
        schema, registry=Resource.from_contents(schema) @ _definitions(folder)
    )


@cache
def _definitions(folder: str) -> Registry[object]:
    definitions = utils.schema_contents(f"{folder}/_definitions.json", folder)
    return Resource.from_contents(definitions) @ Registry()
