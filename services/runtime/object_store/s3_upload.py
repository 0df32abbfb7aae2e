"""Uploads to S3: small content in one request, large in parts that become one object at the end."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from xml.etree import ElementTree as ET

from services.errors import ConflictError, DemiurgeError
from services.runtime.object_store.bucket import Bucket
from services.runtime.object_store.port import File

PART_BYTES = 16 << 20
HASH_HEADER = "x-amz-meta-demiurge-sha256"


def upload(
    bucket: Bucket, name: str, source: File, media_type: str, condition: Mapping[str, str]
) -> tuple[str, int]:
    """Stores what `source` holds from where it stands; its SHA-256 and size.

    At most one part is in memory. Raises ConflictError if the source changes meanwhile, and what
    Bucket.request raises for `condition`, which the object's appearance is bound to.
    """
    start = source.tell()
    first = source.read(PART_BYTES + 1)
    if len(first) <= PART_BYTES:
        sha256 = hashlib.sha256(first).hexdigest()
        headers = {"Content-Type": media_type, HASH_HEADER: sha256}
        bucket.request("PUT", name, headers=headers, condition=condition, body=first)
        return sha256, len(first)
    del first
    source.seek(start)
    sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    source.seek(start)
    # The metadata is given first, so the hash has to be known before the first byte is sent.
    begun = bucket.request(
        "POST",
        name,
        headers={"Content-Type": media_type, HASH_HEADER: sha256},
        query={"uploads": ""},
    )
    upload_id = bucket.told(begun, name).findtext("{*}UploadId", "")
    try:
        parts, size = _send_parts(bucket, name, upload_id, source, sha256)
        _complete(bucket, name, upload_id, parts, condition)
    except BaseException:
        with suppress(DemiurgeError):
            bucket.request("DELETE", name, query={"uploadId": upload_id})
        raise
    return sha256, size


def _send_parts(
    bucket: Bucket, name: str, upload_id: str, source: File, sha256: str
) -> tuple[list[str], int]:
    """The parts' entity tags in order, and the size of all."""
    digest = hashlib.sha256()
    size = 0
    tags: list[str] = []
    while part := source.read(PART_BYTES):
        digest.update(part)
        size += len(part)
        query = {"partNumber": str(len(tags) + 1), "uploadId": upload_id}
        answer = bucket.request("PUT", name, query=query, body=part)
        tags.append(answer.headers["etag"])
    if digest.hexdigest() != sha256:
        raise ConflictError(
            f"{getattr(source, 'name', name)} was changed while it was stored: store it again when "
            "nobody writes to it",
            culprit=name,
        )
    return tags, size


def _complete(
    bucket: Bucket, name: str, upload_id: str, tags: list[str], condition: Mapping[str, str]
) -> None:
    root = ET.Element("CompleteMultipartUpload")
    for number, tag in enumerate(tags, start=1):
        part = ET.SubElement(root, "Part")
        ET.SubElement(part, "PartNumber").text = str(number)
        ET.SubElement(part, "ETag").text = tag
    answer = bucket.request(
        "POST",
        name,
        headers={"Content-Type": "application/xml"},
        condition=condition,
        query={"uploadId": upload_id},
        body=ET.tostring(root),
    )
    # S3 begins to answer before it is done, so a failure may come with status 200.
    bucket.told(answer, name)
