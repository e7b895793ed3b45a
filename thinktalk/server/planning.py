"""Planning: what a session and one response ask for -> Plan: the scene, how it is spoken, what its words are bound to."""

from __future__ import annotations

import json
import secrets
from typing import Any

from thinktalk.engine.wording import Wording
from thinktalk.prompt import DEFAULT_SYSTEM, SPEECH_SYSTEM
from thinktalk.server.calls import OPEN, with_tools
from thinktalk.server.hub import Hub
from thinktalk.server.items import Line
from thinktalk.server.problems import Problem
from thinktalk.server.responding import Plan
from thinktalk.server.sitting import Scene
from thinktalk.server.wire.realtime import ResponseParams
from thinktalk.server.wire.realtime_session import NamedTool, SessionConfig, Tool, VoiceId

__all__ = ["plan_for", "system_of"]


def system_of(config: SessionConfig, params: ResponseParams, *, speech: bool) -> str:
    """The system prompt: instructions, the response's before the session's, and the tools."""
    instructions = config.instructions if params.instructions is None else params.instructions
    if instructions is None:
        instructions = SPEECH_SYSTEM if speech else DEFAULT_SYSTEM
    return with_tools(instructions, _offered(config, params))


def _offered(config: SessionConfig, params: ResponseParams) -> list[dict[str, Any]]:
    """The functions that may be called."""
    choice = config.tool_choice if params.tool_choice is None else params.tool_choice
    offered: list[Tool] = config.tools if params.tools is None else params.tools
    return [] if choice == "none" else [tool.model_dump(exclude_none=True) for tool in offered]


def plan_for(
    hub: Hub, config: SessionConfig, params: ResponseParams, lines: tuple[Line, ...]
) -> Plan:
    """How one response is made. Errors: Problem."""
    modalities = params.output_modalities or config.output_modalities
    speech = "audio" in modalities
    if speech and not hub.omni.can_speak:
        raise Problem(400, 'response.output_modalities: this server\'s model writes only; use ["text"]', param="response.output_modalities")  # fmt: skip
    asked = params.audio.output.voice
    name = asked.id if isinstance(asked, VoiceId) else asked
    voice = hub.voice(name or config.audio.output.voice_name) if hub.omni.can_speak else "none"
    speaks = speech or "audio" in config.output_modalities  # a seat with a voice may also write
    scene = Scene(system_of(config, params, speech=speaks), voice if speaks else None, lines)
    most = config.max_output_tokens if params.max_output_tokens is None else params.max_output_tokens  # fmt: skip
    options: dict[str, Any] = {"seed": secrets.randbits(31) if config.seed is None else config.seed}
    if most != "inf":
        options["max_text_tokens"] = min(int(most), hub.settings.max_text_tokens)
    if config.temperature is not None:
        options["text_sample"] = config.temperature > 0
        if config.temperature > 0:
            options["text_temperature"] = config.temperature
    offered = _offered(config, params)
    return Plan(
        scene=scene, speech=speech, voice=voice, format=params.audio.output.format or config.audio.output.format,
        options=options, wording=_wording(hub, config, params, offered), tools=bool(offered), max_output_tokens=most,
        metadata=params.metadata,
    )  # fmt: skip


def _wording(
    hub: Hub, config: SessionConfig, params: ResponseParams, offered: list[dict[str, Any]]
) -> Wording:
    """A call is not spoken; where one is required, the reply begins with it. Errors: Problem for an unknown function."""
    choice = config.tool_choice if params.tool_choice is None else params.tool_choice
    if isinstance(choice, NamedTool):
        if choice.name not in [tool["name"] for tool in offered]:
            raise Problem(400, f"tool_choice: {choice.name!r} is not among the tools", param="tool_choice")  # fmt: skip
        begins = f'{OPEN}\n{{"name": {json.dumps(choice.name)}, "arguments": '
    elif choice == "required":
        if not offered:
            raise Problem(400, "tool_choice: required, and there are no tools", param="tool_choice")
        begins = f'{OPEN}\n{{"name": "'
    else:
        return Wording(unspoken=(OPEN,)) if offered else Wording()
    return Wording(given=tuple(hub.omni.tokenizer.encode(begins)), unspoken=(OPEN,))
