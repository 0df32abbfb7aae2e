"""Opens checkpoints and arguments that others wrote, without running anything they hold.

Pickle and YAML can name any callable and have it called. Here both may name weights, plain
containers, `argparse.Namespace` and paths; whatever else they name is refused before it is called.
"""

import argparse
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import torch
import yaml
from numpy.typing import NDArray

from services.errors import InvalidInputError, NotFoundError, UntrustedCheckpointError

# Paths come back pure: a Windows path opens on Linux too, and none of them can touch a file.
PATHS = {
    "PosixPath": PurePosixPath,
    "PurePosixPath": PurePosixPath,
    "WindowsPath": PureWindowsPath,
    "PureWindowsPath": PureWindowsPath,
}
# Python 3.13 pickles paths under the second name.
PATH_MODULES = ("pathlib", "pathlib._local")
REPLACED = {f"{module}.{name}": PATHS[name] for module in PATH_MODULES for name in PATHS}
PLAIN = ("argparse.Namespace", "collections.OrderedDict", *REPLACED)
REFUSED_BY_TORCH = re.compile(r"GLOBAL (\w[\w.]*)")

NAMESPACE_TAG = "tag:yaml.org,2002:python/object:argparse.Namespace"
POSIX_PATH_TAG = "tag:yaml.org,2002:python/object/apply:pathlib.PosixPath"


def load_checkpoint(path: Path) -> Any:
    """What a torch checkpoint holds, its tensors on the CPU and its paths as pure paths.

    Raises:
        NotFoundError: no such file.
        UntrustedCheckpointError: it names something beyond weights and plain settings.
        InvalidInputError: it is no checkpoint, or damaged.
    """
    allowed: list[Any] = [argparse.Namespace]
    allowed += [(pure, name) for name, pure in REPLACED.items()]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            # A pickle protocol that torch warns of either loads or fails below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file", culprit=str(path)) from error
    except Exception as error:
        # torch lets all sorts of exceptions out of a file that is none of its own.
        foreign = _foreign_globals(path) or REFUSED_BY_TORCH.findall(str(error))
        if foreign:
            raise UntrustedCheckpointError(
                f"{path}: names {', '.join(sorted(set(foreign)))}, which may run code; a "
                "checkpoint may hold weights, plain values, argparse.Namespace and paths only",
                culprit=str(path),
            ) from error
        raise InvalidInputError(
            f"{path}: not a torch checkpoint, or a damaged one ({type(error).__name__})",
            culprit=str(path),
        ) from error


def load_arguments(path: Path) -> dict[str, object]:
    """The training arguments in an `args.yml`, its paths as strings.

    Raises:
        NotFoundError: no such file.
        UntrustedCheckpointError: a tag other than argparse.Namespace and pathlib.PosixPath.
        InvalidInputError: no YAML, or no mapping of names to values.
    """
    try:
        with path.open("rb") as stream:
            arguments = _load_yaml(stream)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file", culprit=str(path)) from error
    except (yaml.YAMLError, OSError, RecursionError, ValueError) as error:
        raise InvalidInputError(
            f"{path}: not readable as YAML: {error}", culprit=str(path)
        ) from error
    if not isinstance(arguments, dict):
        raise InvalidInputError(
            f"{path}: holds no arguments, names with their values", culprit=str(path)
        )
    return {str(name): value for name, value in arguments.items()}


def _load_yaml(stream: BinaryIO) -> object:
    loader = _ArgumentsLoader(stream)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _namespace(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
    return dict(loader.construct_mapping(node, deep=True))


def _posix_path(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> str:
    return str(PurePosixPath(*loader.construct_sequence(node)))


def _refuse(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    raise UntrustedCheckpointError(
        f"{loader.name}: holds a {node.tag} in line {node.start_mark.line + 1}, which may run "
        "code; arguments may hold plain values, argparse.Namespace and pathlib.PosixPath only",
        culprit=str(loader.name),
    )


class _ArgumentsLoader(yaml.SafeLoader):
    """YAML's safe loader, two tags wider."""

    yaml_constructors = {  # noqa: RUF012 - how PyYAML wants a loader of its own described
        **yaml.SafeLoader.yaml_constructors,
        NAMESPACE_TAG: _namespace,
        POSIX_PATH_TAG: _posix_path,
        None: _refuse,
    }


def _foreign_globals(path: Path) -> list[str]:
    """What the pickles of a file name beyond torch and plain values, found without unpickling."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
                names = [name for each in pickles for name in _globals(archive.read(each))]
        else:
            names = list(_globals(path.read_bytes()))
    except (OSError, zipfile.BadZipFile):
        return []
    return [name for name in names if name and name not in PLAIN and not name.startswith("torch.")]


def _globals(pickled: bytes) -> Iterator[str]:
    """Each global that pickles, one behind the other, name; ends where they can't be read."""
    stream = BytesIO(pickled)
    strings: list[str] = []
    remembered: dict[int, str] = {}
    try:
        while True:
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".").strip(".")
                elif operation.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:])
                elif "UNICODE" in operation.name or "STRING" in operation.name:
                    strings.append(str(argument))
                elif operation.name == "MEMOIZE":
                    remembered[len(remembered)] = strings[-1] if strings else ""
                elif operation.name in ("BINGET", "LONG_BINGET"):
                    strings.append(remembered.get(argument or 0, ""))
    except (ValueError, IndexError, OverflowError, MemoryError):
        return


def load_array(path: Path) -> NDArray[Any]:
    """A .npy file; InvalidInputError, naming it, if it is damaged or would need a pickle."""
    import numpy as np

    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInputError(f"{path.name}: {error}", culprit=path.name) from error
    return array


def load_archive(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name; errors as load_array."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path.name}: {error}", culprit=path.name) from error


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object; InvalidInputError, naming the file, if it holds anything else."""
    import orjson

    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{path.name}: {error}", culprit=path.name) from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path.name}: is not a JSON object", culprit=path.name)
    return content
