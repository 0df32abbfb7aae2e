"""What a run is given, looked at before anything is trained, uploaded or described."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.cli.corpus import recordings
from services.errors import DemiurgeError, InvalidInputError, NotFoundError
from services.runtime.settings import RuntimeSettings, variable_of

NOUNS = {"unagan": "synth", "melgan": "synth", "predictor": "predictor"}


@contextmanager
def option(name: str) -> Iterator[None]:
    """Errors inside begin with the option that is to blame."""
    try:
        yield
    except (InvalidInputError, NotFoundError) as error:
        raise type(error)(f"{name}: {error.message}", culprit=name) from error


def check_recordings(name: str, folder: Path) -> None:
    """Raises NotFoundError, naming the option, for a folder that is not there or holds none."""
    with option(name):
        recordings(folder)


def check_output(name: str, folder: Path) -> None:
    """Raises InvalidInputError, naming the option, for a folder that cannot be made or written."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InvalidInputError(
            f"{name}: {existing} is a file: give another folder, or move it away", culprit=name
        )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InvalidInputError(
            f"{name}: nothing can be written into {existing} ({error.strerror}): give another "
            "folder, or make room for it",
            culprit=name,
        ) from error


def check_models(
    given: Mapping[str, str], runtime: RuntimeSettings, predictor_address: str = ""
) -> None:
    """Raises NotFoundError or InvalidInputError, naming the option, for ids that are not there.

    `given` is ids by family; services elsewhere are asked for what they have. A predictor at
    `predictor_address` is asked there, unless a gateway elsewhere is to reach it.
    """
    for family, model_id in given.items():
        with option(f"--{family}"):
            try:
                if family == "predictor" and predictor_address:
                    if not runtime.address_of("gateway"):
                        _ask("predictor", family, model_id, predictor_address)
                elif runtime.address_of("gateway"):
                    _ask("gateway", family, model_id)
                elif runtime.address_of(NOUNS[family]):
                    _ask(NOUNS[family], family, model_id)
                else:
                    _look_up(runtime, family, model_id)
            except NotFoundError as error:
                raise NotFoundError(f"{error.message} (see `demiurge models`)") from error


def _look_up(runtime: RuntimeSettings, family: str, model_id: str) -> None:
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.opening import open_store

    try:
        ModelStore(open_store(runtime)).find(family, model_id)
    except (NotFoundError, InvalidInputError):
        if family != "predictor" or not _is_plugin(model_id):
            raise


def _is_plugin(predictor_id: str) -> bool:
    """Whether another package brings it; ConfigurationError if that package does not work."""
    from services.predictor.plugins import installed_plugins
    from services.predictor.settings import PredictorSettings
    from services.runtime.settings import load

    plugin = installed_plugins(load(PredictorSettings).plugins).get(predictor_id.partition("@")[0])
    if plugin:
        plugin.predictor_class()
    return plugin is not None


def _ask(noun: str, family: str, model_id: str, predictor_address: str = "") -> None:
    """Asks at the address of `noun`; one that does not offer the question lets the run go on."""
    from services.cli.connection import connect

    with connect(noun, predictor_address=predictor_address) as client:
        import grpc
        from demiurge.predictor.v1.predictor_service_pb2 import GetPredictorRequest
        from demiurge.synth.v1.synth_service_pb2 import GetModelRequest, ModelFamily

        try:
            if family == "predictor":
                client.predictor.GetPredictor(GetPredictorRequest(predictor_id=model_id))
            else:
                kind = ModelFamily.Value(f"MODEL_FAMILY_{family.upper()}")
                client.synth.GetModel(GetModelRequest(family=kind, model_id=model_id))
        except grpc.RpcError as error:
            if getattr(error, "code", lambda: None)() is not grpc.StatusCode.UNIMPLEMENTED:
                raise


def refuse_training_for(runtime: RuntimeSettings, missing: list[str]) -> DemiurgeError:
    """What is told where models would have to be trained for a gateway at another address."""
    options = ", ".join(sorted(f"--{family}" for family in missing))
    variable = variable_of(RuntimeSettings, runtime.address_field_of("gateway"))
    return InvalidInputError(
        f"give {options}: with {variable}={runtime.address_of('gateway')}, nothing is trained "
        "here. "
        "`demiurge models` lists the ids there are; DEMIURGE_STORE=s3://… (the deployment's) "
        f"`demiurge train {missing[0]} --recorded FOLDER` trains into its store, and prints the id",
        culprit=variable,
    )
