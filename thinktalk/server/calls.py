"""Calls: functions that the model may call, in the form that Qwen learnt (Hermes) -> calls taken out of its text as it comes.

    system      instructions + <tools> one JSON schema a line </tools> + how to call
    reply       some words <tool_call>{"name": ..., "arguments": {...}}</tool_call> ...
    push        "some words", [Call(name, arguments)]

What stands between the marks and cannot be read as a call stays text: nothing that the model said is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CLOSE", "OPEN", "Call", "CallReader", "call_text", "result_text", "with_tools"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"

# Word for word the chat template of Qwen2.5.
BEFORE = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""
AFTER = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


@dataclass(frozen=True)
class Call:
    """A function is to be called."""

    name: str
    arguments: str
    """JSON."""


def with_tools(instructions: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """The system prompt. Each tool has a name, and may have a description and parameters (a JSON schema)."""
    if not tools:
        return instructions
    lines = (
        "\n" + json.dumps({"type": "function", "function": _signature(tool)}, ensure_ascii=False)
        for tool in tools
    )
    return instructions + BEFORE + "".join(lines) + AFTER


def _signature(tool: Mapping[str, Any]) -> dict[str, Any]:
    known = ("name", "description", "parameters")
    return {name: tool[name] for name in known if tool.get(name) is not None}


def call_text(name: str, arguments: str) -> str:
    """A call as the model writes it.

    >>> print(call_text("look", '{"at": 1}'))
    <tool_call>
    {"name": "look", "arguments": {"at": 1}}
    </tool_call>
    """
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        given = arguments  # what a model wrote need not be JSON
    inner = json.dumps({"name": name, "arguments": given}, ensure_ascii=False)
    return f"{OPEN}\n{inner}\n{CLOSE}"


def result_text(output: str) -> str:
    """What came back from a call, as the model reads it."""
    return f"<tool_response>\n{output}\n</tool_response>"


class CallReader:
    """A reply's text in pieces.

    >>> reader = CallReader()
    >>> reader.push("Well <tool"), reader.push('_call>{"name": "f", "arguments": {}}</tool_call>')
    (('Well ', []), ('', [Call(name='f', arguments='{}')]))
    """

    def __init__(self) -> None:
        self._text = ""  # not given out yet
        self._inside = False

    def push(self, piece: str) -> tuple[str, list[Call]]:
        """Text that is certainly none of a call, and calls that are whole."""
        self._text += piece
        said, calls = "", []
        while True:
            mark = CLOSE if self._inside else OPEN
            before, found, rest = self._text.partition(mark)
            if not found:
                break
            self._text = rest
            if not self._inside:
                said += before
            elif (call := read_call(before)) is not None:
                calls.append(call)
            else:
                said += OPEN + before + CLOSE
            self._inside = not self._inside
        if not self._inside:
            free = len(self._text) - _undecided(self._text)
            said, self._text = said + self._text[:free], self._text[free:]
        return said, calls

    def flush(self) -> tuple[str, list[Call]]:
        """What is left when the text has ended: a call whose end mark is missing may still be one."""
        text, inside = self._text, self._inside
        self._text, self._inside = "", False
        call = read_call(text) if inside else None
        if call is not None:
            return "", [call]
        return (OPEN + text if inside else text), []


def read_call(text: str) -> Call | None:
    """A call, or None when it is none."""
    try:
        read = json.loads(text)
    except ValueError:
        return None
    if not isinstance(read, dict) or not isinstance(read.get("name"), str) or not read["name"]:
        return None
    arguments = read.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return Call(read["name"], arguments)


def _undecided(text: str) -> int:
    """Characters at the end that the mark may begin with."""
    return next((n for n in range(min(len(OPEN) - 1, len(text)), 0, -1) if text.endswith(OPEN[:n])), 0)  # fmt: skip
