"""PipelineService: runs and audio, translated."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
from demiurge.gateway.v1 import gateway_service_pb2 as messages
from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceServicer

from services.errors import InvalidInputError
from services.gateway.audio_library import AudioLibrary
from services.gateway.runs import Runs
from services.gateway.uploads import prompt

DEFAULT_PAGE_SIZE = 100

Context = grpc.aio.ServicerContext[object, object]


class GatewayServicer(PipelineServiceServicer):
    """Runs, and audio in and out."""

    def __init__(
        self,
        runs: Runs,
        library: AudioLibrary,
        *,
        upload_idle_seconds: float = 60.0,
        resumes: bool = False,
    ) -> None:
        """`resumes` takes up interrupted runs unasked, from the start on."""
        self._runs = runs
        self._library = library
        self._upload_idle_seconds = upload_idle_seconds
        self._resumes = resumes

    async def warm_up(self) -> None:
        """Takes up what the last start left, if that is wanted."""
        if self._resumes:
            self._runs.resume()

    async def CreateRun(
        self, request: messages.CreateRunRequest, context: Context
    ) -> messages.CreateRunResponse:
        """Starts, attaches to, or resumes a run."""
        return messages.CreateRunResponse(run=await self._runs.create(request.spec))

    async def GetRun(
        self, request: messages.GetRunRequest, context: Context
    ) -> messages.GetRunResponse:
        """Describes one run."""
        return messages.GetRunResponse(run=await self._runs.get(request.run_id))

    async def ListRuns(
        self, request: messages.ListRunsRequest, context: Context
    ) -> messages.ListRunsResponse:
        """Lists runs, newest first."""
        runs, token = await self._runs.page(
            request.page_token, request.page_size or DEFAULT_PAGE_SIZE
        )
        return messages.ListRunsResponse(runs=runs, next_page_token=token)

    async def WatchRun(
        self, request: messages.WatchRunRequest, context: Context
    ) -> AsyncIterator[messages.WatchRunResponse]:
        """Sends the run at every change."""
        async for run in self._runs.watch(request.run_id):
            yield messages.WatchRunResponse(run=run)

    async def CancelRun(
        self, request: messages.CancelRunRequest, context: Context
    ) -> messages.CancelRunResponse:
        """Stops a run."""
        return messages.CancelRunResponse(run=await self._runs.cancel(request.run_id))

    async def DeleteRun(
        self, request: messages.DeleteRunRequest, context: Context
    ) -> messages.DeleteRunResponse:
        """Removes a run and its piece."""
        await self._runs.delete(request.run_id)
        return messages.DeleteRunResponse()

    async def UploadAudio(
        self, request_iterator: AsyncIterator[messages.UploadAudioRequest], context: Context
    ) -> messages.UploadAudioResponse:
        """Stores one file."""
        requests = prompt(aiter(request_iterator), self._upload_idle_seconds)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInputError("the first message must be the header", culprit="header")
        header = first.header
        with self._library.upload(header.database, header.file_name, header.sha256) as upload:
            async for message in requests:
                if message.WhichOneof("part") != "data":
                    raise InvalidInputError("the header comes once", culprit="header")
                await asyncio.to_thread(upload.write, message.data)
            audio = await asyncio.to_thread(upload.finish)
        return messages.UploadAudioResponse(audio=audio)

    async def DownloadAudio(
        self, request: messages.DownloadAudioRequest, context: Context
    ) -> AsyncIterator[messages.DownloadAudioResponse]:
        """Sends one object from an offset on."""
        chunks = self._library.download(request.key, request.offset_bytes, request.sha256)
        first = True
        while chunk := await asyncio.to_thread(next, chunks, None):
            reference, data = chunk
            yield messages.DownloadAudioResponse(object=reference if first else None, data=data)
            first = False

    async def ListAudio(
        self, request: messages.ListAudioRequest, context: Context
    ) -> messages.ListAudioResponse:
        """Lists the files of a database by name."""
        audio, token = await asyncio.to_thread(
            self._library.page,
            request.database,
            request.page_token,
            request.page_size or DEFAULT_PAGE_SIZE,
        )
        return messages.ListAudioResponse(audio=audio, next_page_token=token)
