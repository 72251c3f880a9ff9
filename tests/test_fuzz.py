"""Whatever a file holds, it is read or refused with a message: changed files of every kind, and files that never were any.

The changes and the child process that reads are those of `python -m benchmarks.fuzz`, which tries many more.
"""

import json
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import TARGETS, Child, changed
from sr_iqa.config import OptionsError, load, options_to_yaml
from sr_iqa.data.codecs import CODECS
from sr_iqa.data.gtset import is_name
from sr_iqa.data.layouts import read_labels
from sr_iqa.data.tree import check_tree
from sr_iqa.errors import UserError, printable
from sr_iqa.images import ImageError, image_size, read_image, read_image_lenient

CASES = {
    "options": 80,
    "checks": 80,
    "labels": 250,
    "stores": 200,
    "unfinished": 100,
    "images": 250,
    "scores": 100,
    "pth": 60,
    "safetensors": 60,
    "adapters": 25,
    "studies": 60,
}
ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", CASES)
def test_changed_files_are_read_or_refused(name):
    target = TARGETS[name]
    with Child(target) as child:
        assert all(child.outcome(seed) in ("accepted", "refused") for seed in child.seeds)

        @settings(ALWAYS_THE_SAME, max_examples=CASES[name])
        @given(st.sampled_from(child.seeds), st.randoms(use_true_random=False))
        def tried(seed, random):
            outcome = child.outcome(changed(target, seed, random))
            assert outcome in ("accepted", "refused"), outcome

        tried()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def refused_or(error, work):
    """What work() gives; None where it raises `error`, whose message must be text."""
    try:
        return work()
    except error as refusal:
        assert str(refusal).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(("01", "02", "Positive", "Negative")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(("File", "Label", "Name")) | st.text(), inner, max_size=4),
)


@settings(ALWAYS_THE_SAME, max_examples=300)
@given(content=JSON | st.binary(), ascii=st.booleans())
def test_any_json_and_any_bytes_are_labels_or_none(folder, content, ascii):
    data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=ascii).encode(errors="surrogatepass")
    (folder / "a.json").write_bytes(data)
    words = refused_or(ValueError, lambda: read_labels(folder / "a.json", ["01", "02"]))
    assert words is None or set(words) <= {"Positive", "Similar", "Negative"}


YAML_SIGNS = st.text(st.sampled_from("abn: -?[]{},#&*!|>'\"%@`\\\n\t0.~<=") | st.characters(), max_size=60)


@settings(ALWAYS_THE_SAME, max_examples=300)
@given(text=YAML_SIGNS)
def test_any_text_is_options_or_none(folder, text):
    (folder / "a.yml").write_bytes(text.encode(errors="surrogatepass"))
    assert refused_or(OptionsError, lambda: load(folder / "a.yml")) is None  # nothing so short is a run


@settings(ALWAYS_THE_SAME, max_examples=100)
@given(text=st.text())
def test_any_text_of_an_option_is_the_same_after_writing(folder, text):
    run = {"name": "a", "scale": 2, "network_g": {"type": "SwinIR", "note": text}}
    (folder / "b.yml").write_text(json.dumps(run))
    loaded = refused_or(OptionsError, lambda: load(folder / "b.yml"))
    if loaded is None:
        assert "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text)
        return
    assert loaded.options.network_g.arguments["note"] == text
    (folder / "again.yml").write_text(options_to_yaml(loaded.options), encoding="utf-8")
    assert load(folder / "again.yml").options == loaded.options


@settings(ALWAYS_THE_SAME, max_examples=200)
@given(
    start=st.sampled_from((b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff\xe0", b"BM", b"RIFF", b"II*\0", b"P6\n")), rest=st.binary()
)
def test_any_bytes_are_an_image_or_none(folder, start, rest):
    (folder / "a.png").write_bytes(start + rest)
    for read in (read_image, read_image_lenient, image_size):
        found = refused_or(ImageError, lambda read=read: read(folder / "a.png"))
        assert found is None or isinstance(found, tuple) or found.dtype in (np.uint8, np.uint16)


@settings(ALWAYS_THE_SAME, max_examples=200)
@given(stored=st.binary(max_size=200), inflated=st.binary(max_size=3 * 64), cut=st.integers(0, 20))
def test_any_bytes_are_a_block_or_none(stored, inflated, cut):
    tile = zlib.compress(inflated)
    for data in (stored, len(tile).to_bytes(4, "little") + tile[: len(tile) - cut]):
        for codec in CODECS.values():
            block = refused_or(ValueError, lambda codec=codec, data=data: codec.decode(data, (8, 8), slice(0, 8), slice(0, 8)))
            assert block is None or block.shape == (8, 8, 3)


@settings(ALWAYS_THE_SAME, max_examples=200)
@given(data=st.binary(max_size=3000))
def test_any_bytes_are_refused_as_a_store(folder, data):
    (folder / "data.mdb").write_bytes(data.ljust(2048, b"\0"))
    with pytest.raises(ValueError, match="it is"):
        check_tree(folder / "data.mdb")


@settings(ALWAYS_THE_SAME, max_examples=200)
@given(text=st.text(st.characters()))
def test_messages_are_text_on_any_terminal(text):
    shown = str(UserError(text))
    assert shown == printable(shown) and shown.encode().decode() == shown
    assert all(sign in "\n\t" or not (sign < " " or "\x7f" <= sign <= "\x9f") for sign in shown)
    assert not is_name(text) or (shown == text and "/" not in text)
