"""Files of ms-swift and LLaMA-Factory become the same conversations; rows that cannot be used are named."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from sample_house import tone

from thinktalk.cli.main import main
from thinktalk.data.chats import conversation, make_chats
from thinktalk.data.checking import check_shards
from thinktalk.data.mixture import expand
from thinktalk.data.samples import parse
from thinktalk.data.shards import scan
from thinktalk.errors import InputError

SHOWN = {"type": "image", "image": "0.png"}
SAID = {"type": "audio", "audio": "1.wav"}
WANTED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": [SHOWN, {"type": "text", "text": "What is "}, SAID, {"type": "text", "text": "?"}]},
    {"role": "assistant", "content": "A dog."},
]  # fmt: skip
ASK = "<image>What is <audio>?"
MEDIA = {"images": ["pics/dog.png"], "audios": ["bark.wav"]}
FORMATS = {
    "ms-swift": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": ASK}, {"role": "assistant", "content": "A dog."}], "images": [{"path": "pics/dog.png"}], "audios": "bark.wav"},
    "older": {"system": "Be brief.", "history": [["Hello", "Hi."]], "query": ASK, "response": "A dog.", **MEDIA},
    "sharegpt": {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}, {"from": "human", "value": ASK}, {"from": "gpt", "value": "A dog."}], **MEDIA},
    "alpaca": {"system": "Be brief.", "history": [["Hello", "Hi."]], "instruction": ASK, "input": "", "output": "A dog.", **MEDIA},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_one_conversation(form):
    messages, paths = conversation(FORMATS[form])
    assert messages == WANTED
    assert paths == {"0.png": "pics/dog.png", "1.wav": "bark.wav"}


def test_media_without_a_mark_come_first():
    row = {"instruction": "Look.", "input": "Well?", "output": "Yes.", "images": ["a.png", "b.jpg"]}
    messages, _ = conversation(row)
    assert [p.get("image", p.get("text")) for p in messages[0]["content"]] == ["0.png", "1.jpg", "Look.\nWell?"]  # fmt: skip
    # an answer that writes a mark shows nothing
    told, _ = conversation({"query": "How is it marked?", "response": "With <image>."})
    assert told[1]["content"] == "With <image>."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "is list, expected an object"),
        ({"prompt": "x"}, "has prompt, expected messages"),
        ({"query": "<image>?", "response": "x"}, "more <image> marks than images"),
        ({"query": "?", "response": "x", "images": ["http://a/b.png"]}, "is no path of a file"),
        ({"query": "?", "response": "x", "images": ["b.exe"]}, "is no image that is known"),
        ({"query": "?", "response": None}, "a turn of assistant is NoneType"),
        ({"query": 3, "response": "x"}, "the question is no text"),
        ({"query": "?", "response": "x", "history": ["a"]}, "expected pairs"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool' has no place"),
        ({"messages": [{"role": "user", "content": "x"}]}, "does not end with an answer"),
        ({"messages": ["x"]}, "a turn is str"),
    ],
)
def test_rows_that_cannot_be_used_say_why(row, message):
    with pytest.raises(InputError) as error:
        conversation(row, where="f:3")
    assert message in str(error.value) and str(error.value).startswith("f:3: ")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pics").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "PNG")
    (tmp_path / "pics/dog.png").write_bytes(file.getvalue())
    (tmp_path / "bark.wav").write_bytes(tone(0.5))
    (tmp_path / "noise.wav").write_bytes(b"noise")
    rows = [*FORMATS.values(), {"query": "?", "response": "x", "audios": ["noise.wav"]}, {"query": "?", "response": "x", "audios": ["absent.wav"]}]  # fmt: skip
    lines = [json.dumps(r) for r in rows]
    (tmp_path / "chat.jsonl").write_text("\n".join([lines[0], "{", *lines[1:], ""]))
    (tmp_path / "chat.json").write_text(f"[{','.join(lines)}]")
    return tmp_path


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.json"])
def test_rows_become_samples(folder, name):
    made = make_chats([folder / name], folder / "out")
    assert sum(made.samples.values()) == 4
    lines = {"chat.jsonl": [2, 6, 7], "chat.json": [5, 6]}[name]
    assert sorted(f.where for f in made.faults) == [f"{folder / name}:{n}" for n in lines]
    assert check_shards(folder / "out").faults == []
    samples = [parse(e) for path in expand(folder / "out") for e in scan(path).entries]
    for sample in samples:
        assert sample.messages == WANTED and sample.seconds == 0.5
        assert sample.record["pixels"] == {"0.png": [40, 60]}
        assert sample.resolved()[3]["content"][2]["audio"] == tone(0.5)


def test_from_the_command_line(folder, capsys):
    out = folder / "out"
    assert main(["data", "make", "--chats", str(folder / "chat.jsonl"), "--out", str(out), "--json"]) == 0  # fmt: skip
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 3
    (folder / "none.jsonl").write_text('{"query": "?"}\n')
    assert (
        main(["data", "make", "--chats", str(folder / "none.jsonl"), "--out", str(folder / "no")])
        == 2
    )
    assert "no conversation that can be used; first fault:" in capsys.readouterr().err
    assert main(["data", "make", "--chats", str(folder / "chat.jsonl"), "--out", str(out)]) == 2
    assert "is already there" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be read"):
        make_chats([folder / "absent.jsonl"], folder / "no")
