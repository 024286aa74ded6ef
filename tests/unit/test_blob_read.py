"""blob_read: pages that fit together again, one mode at a time, and nothing of others."""

import base64
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mcp_ssh.app import App
from mcp_ssh.errors import NotFound
from mcp_ssh.store import Blobs
from mcp_ssh.tool import Caller, Question, Risk, Role, TransportName
from mcp_ssh.tools import blob

ANNA = Caller("anna", Role.OPERATOR)
SOME_ID = "0" * 32


class DirectCall:
    """A call from this test; blob_read reports no progress and asks nothing."""

    door: TransportName = "direct"
    confirms = False

    def __init__(self, caller: Caller = ANNA) -> None:
        self.caller = caller

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        raise AssertionError((done, total, message))

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        raise AssertionError(question)


def app_of(blobs: Blobs) -> App:
    """The one part of the app that blob_read may use."""
    return cast("App", SimpleNamespace(blobs=blobs))


async def make(blobs: Blobs, content: bytes) -> str:
    writer = blobs.writer("anna")
    await writer.write(content)
    return (await writer.finish()).id


async def read(blobs: Blobs, blob_id: str, caller: Caller = ANNA, **given: Any) -> dict[str, Any]:
    page = await blob.read(app_of(blobs), blob.BlobReadParams(blob_id=blob_id, **given), DirectCall(caller))
    return page.model_dump(exclude_unset=True)


async def pages(blobs: Blobs, blob_id: str, **given: Any) -> list[dict[str, Any]]:
    found = [await read(blobs, blob_id, **given)]
    while "next_offset" in found[-1]:
        assert found[-1]["next_offset"] > found[-1]["offset"]
        found.append(await read(blobs, blob_id, offset=found[-1]["next_offset"], **given))
    return found


texts = st.text(st.sampled_from("aé€😀\n\u0301"), max_size=60).map(str.encode)
bytes_of_any_kind = st.lists(
    st.sampled_from(
        [b"a", "é".encode(), "€".encode(), "😀".encode(), b"\xf0", b"\x9f", b"\xe2\x82", b"\xff", b"\xed\xa0"]
    )
).map(b"".join)


@settings(deadline=None, max_examples=60)
@given(texts | bytes_of_any_kind, st.integers(1, 9))
def test_paging_through_next_offset_gives_the_exact_text(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path_factory.mktemp("state"))
        made = await make(blobs, content)
        found = await pages(blobs, made, length=length)
        assert "".join(each["text"] for each in found) == content.decode("utf-8", "replace")
        assert all(len(each["text"].encode()) <= max(length, 4) for each in found if "\ufffd" not in each["text"])
        exact = await pages(blobs, made, length=length, encoding="base64")
        assert b"".join(base64.b64decode(each["base64"]) for each in exact) == content
        await blobs.close()

    anyio.run(check)


@pytest.mark.parametrize("character", ["é", "€", "😀"])
async def test_no_page_edge_splits_a_character(tmp_path: Path, character: str) -> None:
    blobs = Blobs(tmp_path)
    content = ("ab" + character + "cd").encode()
    made = await make(blobs, content)
    for offset in range(len(content)):
        for length in range(1, len(content) + 1):
            page = await read(blobs, made, offset=offset, length=length)
            assert "\ufffd" not in page["text"]
            assert page["text"].encode() == content[page["offset"] :][: len(page["text"].encode())]
            assert page["offset"] <= offset
    for tail in range(1, len(content) + 1):
        page = await read(blobs, made, tail=tail)
        assert "\ufffd" not in page["text"]
        assert content.endswith(page["text"].encode())
        assert page["text"].encode() == content[page["offset"] :]
        assert "next_offset" not in page
    await blobs.close()


async def test_a_range_says_where_it_is_and_where_to_go_on(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"0123456789")
    common = {"blob_id": made, "total_bytes": 10, "complete": True}
    assert await read(blobs, made) == {**common, "offset": 0, "text": "0123456789"}
    assert await read(blobs, made, offset=2, length=3) == {**common, "offset": 2, "next_offset": 5, "text": "234"}
    assert await read(blobs, made, offset=7, length=3) == {**common, "offset": 7, "text": "789"}
    for beyond in (10, 11, 10**15):
        assert await read(blobs, made, offset=beyond) == {**common, "offset": beyond, "text": ""}
    assert await read(blobs, made, tail=4) == {**common, "offset": 6, "text": "6789"}
    assert await read(blobs, made, tail=99) == {**common, "offset": 0, "text": "0123456789"}
    assert await read(blobs, made, tail=4, encoding="base64") == {**common, "offset": 6, "base64": "Njc4OQ=="}
    await blobs.close()


async def test_a_page_is_8_kib_unless_the_call_says_otherwise(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"x" * 3_000_000)
    assert len((await read(blobs, made))["text"]) == 8192
    assert len((await read(blobs, made, length=1024 * 1024))["text"]) == 1024 * 1024
    assert len((await read(blobs, made, tail=1024 * 1024))["text"]) == 1024 * 1024
    await blobs.close()


async def test_an_output_kept_in_part_says_so(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, per_call=5)
    page = await read(blobs, await make(blobs, b"0123456789"))
    assert (page["text"], page["total_bytes"], page["complete"]) == ("01234", 5, False)
    await blobs.close()


async def test_a_pattern_finds_lines_and_pages_through_its_matches(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(
        blobs, b"".join(b"line %d %s\n" % (each, b"Error" if each % 3 == 0 else b"ok") for each in range(10))
    )
    assert (await read(blobs, made, pattern="Error", max_matches=1))["matches"] == [
        {"line": 1, "offset": 7, "text": "line 0 Error"}
    ]
    found = await pages(blobs, made, pattern="ERROR", ignore_case=True, max_matches=2)
    assert [each["line"] for page in found for each in page["matches"]] == [1, 4, 7, 10]
    around = (await read(blobs, made, pattern="line 9", context=2))["matches"][0]
    assert (around["before"], around["after"]) == (["line 7 ok", "line 8 ok"], [])
    nothing = await read(blobs, made, pattern="absent")
    assert (nothing["matches"], "next_offset" in nothing, "text" in nothing) == ([], False, False)
    await blobs.close()


async def test_a_pattern_that_would_blow_up_as_a_regular_expression_is_just_text(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"a" * 100_000 + b"\n(a+)+$\n")
    with anyio.fail_after(20):
        assert [each["line"] for each in (await read(blobs, made, pattern="(a+)+$"))["matches"]] == [2]
    await blobs.close()


async def test_another_callers_blob_is_not_found(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"secret")
    for mode in ({}, {"tail": 3}, {"pattern": "s"}):
        with pytest.raises(NotFound):
            await read(blobs, made, Caller("bert", Role.OPERATOR), **mode)
        assert await read(blobs, made, Caller("root", Role.ADMIN), **mode)
    await blobs.close()


@pytest.mark.parametrize(
    "given",
    [
        {"tail": 5, "pattern": "x"},
        {"tail": 5, "offset": 1},
        {"tail": 5, "length": 7},
        {"pattern": "x", "length": 7},
        {"pattern": ""},
        {"pattern": "a\nb"},
        {"pattern": "x" * 257},
        {"pattern": "x", "encoding": "base64"},
        {"ignore_case": True},
        {"context": 1},
        {"max_matches": 3},
        {"pattern": "x", "context": 11},
        {"pattern": "x", "max_matches": 201},
        {"pattern": "x", "max_matches": 0},
        {"offset": -1},
        {"length": 0},
        {"length": 1024 * 1024 + 1},
        {"tail": 0},
        {"encoding": "latin-1"},
        {"blob_id": "../../etc/passwd"},
        {"blob_id": "A" * 32},
        {"blob_id": SOME_ID + "\n"},
    ],
)
def test_arguments_out_of_bounds_or_of_two_modes_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        blob.BlobReadParams.model_validate({"blob_id": SOME_ID, **given})


def test_arguments_that_spell_out_the_defaults_are_accepted() -> None:
    spelled = {"offset": 0, "length": 8192, "tail": None, "ignore_case": False, "context": 0, "max_matches": 50}
    assert blob.BlobReadParams.model_validate({"blob_id": SOME_ID, **spelled, "pattern": "x"}).pattern == "x"
    assert blob.BlobReadParams.model_validate({"blob_id": SOME_ID, **spelled, "pattern": None}).pattern is None


def test_the_tool_only_reads_and_describes_every_field() -> None:
    assert (blob.read.name, blob.read.risk, blob.read.role) == ("blob_read", Risk.READ, Role.VIEWER)
    for model in (blob.BlobReadParams, blob.BlobReadResult, blob.BlobReadMatch):
        assert all(field.description for field in model.model_fields.values())
