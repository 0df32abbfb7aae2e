"""Compiles the contract: `python protos/generate.py` rewrites protos/gen, `--check` compares.

Beside the Python it makes the descriptor set by which Envoy translates JSON. buf.validate's own
definitions come from the installed protovalidate package, as a descriptor, and google.api's from
googleapis-common-protos, so that nothing is fetched and nothing of theirs is kept in the tree but
what protoc makes of it.
"""

import argparse
import filecmp
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.api import annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parent
GENERATED = ROOT / "gen"
DESCRIPTORS = ROOT.parent / "deploy" / "envoy" / "demiurge.binpb"
# Errors carry these; Envoy cannot tell in JSON what it does not know.
ERROR_DETAILS = "google/rpc/error_details.proto"


def write_dependencies(target: Path) -> None:
    """Writes a FileDescriptorSet of buf/validate/validate.proto to `target`."""
    from google.protobuf import descriptor_pb2
    from protovalidate._gen.buf.validate import validate_pb  # the package has no public way to it

    dependencies = descriptor_pb2.FileDescriptorSet()
    dependencies.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    target.write_bytes(dependencies.SerializeToString())


def sources() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "demiurge").rglob("*.proto"))


def run_protoc(*arguments: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dependencies = Path(folder, "dependencies.binpb")
        write_dependencies(dependencies)
        command = [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--proto_path={Path(annotations_pb2.__file__).parents[2]}",
            f"--descriptor_set_in={dependencies}",
            *arguments,
        ]
        if protoc.main(command):
            sys.exit("protoc failed: see the messages above")


def generate(target: Path) -> None:
    """Compiles every proto below ROOT into Python modules and type stubs below `target`."""
    target.mkdir(parents=True, exist_ok=True)
    run_protoc(
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
        "buf/validate/validate.proto",
        *sources(),
    )
    services = [path for path in sources() if path.endswith("_service.proto")]
    run_protoc(f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services)


def describe(target: Path) -> None:
    """Writes the FileDescriptorSet of the contract, with all that it imports, to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    run_protoc("--include_imports", f"--descriptor_set_out={target}", *sources(), ERROR_DETAILS)


def lint() -> None:
    """Lints the contract by buf.yaml, from a compiled image: buf would fetch dependencies."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.binpb")
        run_protoc(
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={image}",
            *sources(),
        )
        config = str(ROOT.parent / "buf.yaml")
        if subprocess.run(["buf", "lint", str(image), "--config", config], check=False).returncode:
            sys.exit("buf lint failed: see the messages above")


def is_fresh(fresh: Path) -> bool:
    """Whether protos/gen holds exactly the code that was just generated into `fresh`."""

    def listing(root: Path) -> list[Path]:
        found = (path for path in root.rglob("*") if path.suffix in {".py", ".pyi"})
        return sorted(path.relative_to(root) for path in found)

    names = listing(fresh)
    if names != listing(GENERATED):
        return False
    return all(_same(fresh / name, GENERATED / name) for name in names)


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="lint; fail if protos/gen is stale")
    if not parser.parse_args().check:
        generate(GENERATED)
        describe(DESCRIPTORS)
        return
    lint()
    with tempfile.TemporaryDirectory() as folder:
        code, descriptors = Path(folder, "gen"), Path(folder, "demiurge.binpb")
        generate(code)
        describe(descriptors)
        for stale, path in (
            (not is_fresh(code), GENERATED),
            (not _same(descriptors, DESCRIPTORS), DESCRIPTORS),
        ):
            if stale:
                name = path.relative_to(ROOT.parent)
                sys.exit(f"{name} is stale: run `make protos` and commit the result")


if __name__ == "__main__":
    main()
