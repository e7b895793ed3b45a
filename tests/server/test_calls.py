"""Calls are taken out of a text wherever its pieces end, and what is none stays text."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from thinktalk.server.calls import Call, CallReader, call_text, with_tools

CALL = call_text("look", '{"at": [1, "<b>"]}')
TEXTS = {
    f"Well. {CALL} So {CALL}.": ("Well.  So .", 2),
    CALL.removesuffix("</tool_call>"): ("", 1),
    "a < b <tool <tool_call": ("a < b <tool <tool_call", 0),
    "<tool_call>no json</tool_call>!": ("<tool_call>no json</tool_call>!", 0),
    "<tool_call>{1": ("<tool_call>{1", 0),
    '<tool_call>{"name": 3}</tool_call>': ('<tool_call>{"name": 3}</tool_call>', 0),
}


@pytest.mark.parametrize("text", TEXTS)
@given(cuts=st.lists(st.integers(0, 120), max_size=8))
def test_wherever_it_is_cut(text: str, cuts: list[int]):
    reader, said, calls = CallReader(), "", []
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, stop in pairwise(places):
        more, found = reader.push(text[start:stop])
        said, calls = said + more, calls + found
    more, found = reader.flush()
    assert (said + more, len(calls + found)) == TEXTS[text]
    assert all(call == Call("look", '{"at": [1, "<b>"]}') for call in calls + found)


def test_without_tools_the_prompt_is_the_instructions():
    assert with_tools("Be kind.", []) == "Be kind."


def test_the_prompt_is_the_templates():
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    text = with_tools("Be kind.", [tool])
    assert text.startswith("Be kind.\n\n# Tools\n\nYou may call one or more functions")
    assert '\n{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}\n</tools>' in text  # fmt: skip
