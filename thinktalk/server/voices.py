"""Voices: /v1/voices. A clip and a name -> a voice that chat, speech and Realtime may ask for at once; listed, deleted.

    POST name, file --hub.decoded--> (samples, rate) --cast.enrol--> a file in the directory of voices -> VoiceInfo

A name is the voice's id, too. The model's own voices cannot be deleted; where keys are asked for, an enrolled one only by the
key that brought it. Everybody may speak with it.

OpenAI's own client knows voices by another address, /v1/audio/voices, where the clip is called `audio_sample`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse
from starlette.responses import Response

from thinktalk.errors import InputError
from thinktalk.server.cast import missing, voice_name
from thinktalk.server.hub import Client, Hub, client_of, hub_of
from thinktalk.server.problems import ERROR_SCHEMA, ERRORS, Draining, Problem
from thinktalk.server.sending import answered
from thinktalk.server.wire.voices import (
    AudioVoice,
    DeletedAudioVoice,
    DeletedVoice,
    VoiceInfo,
    VoiceList,
)

__all__ = ["router"]

router = APIRouter(tags=["voices"])

TheHub = Annotated[Hub, Depends(hub_of)]
TheClient = Annotated[Client, Depends(client_of)]


def _told(text: str) -> dict:
    return {"description": text, "content": {"application/json": {"schema": ERROR_SCHEMA}}}


KEPT = {507: _told("It could not be written down; nothing has changed")}
MADE = ERRORS | KEPT | {409: _told("There is a voice of that name, or there are too many")}
CALLED = "What it will be called: letters, digits, spaces, _ - . '"
CLIP = "3 to 60 seconds of one person speaking"


@router.get("/v1/voices", responses=ERRORS)
async def voices(hub: TheHub, client: TheClient) -> VoiceList:
    """The voices that may be asked for: the default one, the model's other ones, the enrolled ones."""
    hub.cast.refresh()
    have = hub.omni.model.voices
    first = have["default"].name if "default" in have else None

    def place(name: str) -> tuple[bool, bool, str]:
        return name != first, hub.cast.enrolled(name) is not None, name

    names = sorted({voice.name for voice in have.values()}, key=place)
    return VoiceList(data=[_info(hub, client, name) for name in names])


@router.post(
    "/v1/voices", response_model=None, responses=MADE | {200: {"description": "It is there", "model": VoiceInfo}},
)  # fmt: skip
async def enrol(
    request: Request,
    hub: TheHub,
    client: TheClient,
    name: Annotated[str, Form(description=CALLED)],
    file: Annotated[UploadFile, File(description=CLIP)],
) -> Response:
    """Enrol a voice from a clip of 3 to 60 seconds in which one person speaks."""

    async def made() -> Response:
        return JSONResponse((await _enrolled(hub, client, name, file, "file")).model_dump())

    return await answered(request, made())


@router.post(
    "/v1/audio/voices", response_model=None, responses=MADE | {200: {"description": "It is there", "model": AudioVoice}},
)  # fmt: skip
async def enrol_as_openai(
    request: Request,
    hub: TheHub,
    client: TheClient,
    name: Annotated[str, Form(description=CALLED)],
    audio_sample: Annotated[UploadFile, File(description=CLIP)],
    consent: Annotated[str, Form(description="Passed by: consents are yours to keep")] = "",
    type: Annotated[Literal["audio_sample"], Form()] = "audio_sample",
) -> Response:
    """The same for OpenAI's client."""

    async def made() -> Response:
        info = await _enrolled(hub, client, name, audio_sample, "audio_sample")
        return JSONResponse(AudioVoice(id=info.id, name=info.name, created_at=info.created_at).model_dump())  # fmt: skip

    return await answered(request, made())


async def _enrolled(hub: Hub, client: Client, name: str, file: UploadFile, field: str) -> VoiceInfo:
    if not hub.omni.can_speak:
        raise Problem(400, "this server's model writes only: it has no use for voices")
    if hub.draining.is_set():
        raise Draining
    name = voice_name(name)
    hub.cast.check_room(name)  # before the work
    clip = await hub.decoded("voice", await file.read(), name=field)
    await hub.cast.enrol(name, clip, _owner(hub, client))
    return _info(hub, client, name)


@router.get("/v1/voices/{name}", responses=ERRORS)
async def voice(name: str, hub: TheHub, client: TheClient) -> VoiceInfo:
    """One of them."""
    return _info(hub, client, _known(hub, name))


@router.delete("/v1/voices/{name}", responses=ERRORS | KEPT)
async def delete(name: str, hub: TheHub, client: TheClient) -> DeletedVoice:
    """Forget an enrolled voice. Who speaks with it now goes on to the end of the answer."""
    return DeletedVoice(id=await _delete(hub, client, name))


@router.delete("/v1/audio/voices/{name}", responses=ERRORS | KEPT)
async def delete_as_openai(name: str, hub: TheHub, client: TheClient) -> DeletedAudioVoice:
    """The same for OpenAI's client."""
    return DeletedAudioVoice(id=await _delete(hub, client, name))


async def _delete(hub: Hub, client: Client, name: str) -> str:
    name = _known(hub, name)
    info = _info(hub, client, name)
    if not info.deletable:
        whose = "the model's own" if hub.cast.enrolled(name) is None else "another key's"
        raise Problem(403, f"the voice {name!r} is {whose}; enrol voices of your own", code="voice_not_yours")  # fmt: skip
    await hub.cast.delete(name)
    return name


def _known(hub: Hub, name: str) -> str:
    try:
        return hub.cast.find(name)
    except InputError:
        raise missing(name) from None


def _info(hub: Hub, client: Client, name: str) -> VoiceInfo:
    one = hub.cast.enrolled(name)
    if one is None:
        return VoiceInfo(id=name, name=name, created_at=hub.cast.created, deletable=False)
    deletable = one.owner in ("", _owner(hub, client))
    return VoiceInfo(id=name, name=name, created_at=one.created_at, deletable=deletable, experimental=one.experimental)  # fmt: skip


def _owner(hub: Hub, client: Client) -> str:
    """Whose a new voice is: nobody's where nobody is asked for a key, since addresses change."""
    keys = hub.settings.api_keys or hub.settings.api_key_file
    return client.name if keys else ""
