"""The translations: complete, of the same keys as English, which says what the nodes themselves say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from async_decode.report.words import ADVICE
from tests.comfyui.client import Client
from tests.comfyui.server import REPOSITORY

LOCALES = REPOSITORY / "locales"
LANGUAGES = ("en", "zh", "ja", "ko", "fr", "de", "es", "ru")
FILES = ("main", "nodeDefs", "commands", "settings")
#: What translations leave as it is: names of widgets, formats and codecs, and numbers.
KEPT = re.compile(
    r"\b[a-z]+_[a-z_]+\b|\{\w+\}|%[^%\s]+%|\b(?:H\.26[45]|AV1|VP9|ProRes|FFV1|GIF|WebP|CRF|GPU|IMAGE)\b", re.ASCII
)
#: What may be as in English: values with nothing but symbols of units between them.
SYMBOLS = re.compile(r"(?:\{\w+\} (?:ms|s|min) ?)+")


def load(language: str, file: str) -> dict[str, Any]:
    """One file."""
    content: dict[str, Any] = json.loads((LOCALES / language / f"{file}.json").read_text("utf-8"))
    return content


def texts(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with the keys that lead to it."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from texts(value, (*path, key))
        else:
            yield (*path, key), value


def test_there_is_a_folder_of_four_files_for_each_language() -> None:
    assert sorted(folder.name for folder in LOCALES.iterdir()) == sorted(LANGUAGES)
    for language in LANGUAGES:
        names = sorted(file.name for file in (LOCALES / language).iterdir())
        assert names == sorted(f"{file}.json" for file in FILES), language


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_has_the_keys_of_english_and_words_of_its_own(language: str, file: str) -> None:
    english, other = dict(texts(load("en", file))), dict(texts(load(language, file)))

    assert list(other) == list(english)
    assert [key for key, text in other.items() if not text.strip()] == []
    assert [key for key, text in other.items() if text == english[key] and not SYMBOLS.fullmatch(text)] == []
    for key, text in other.items():
        assert sorted(set(KEPT.findall(text))) == sorted(set(KEPT.findall(english[key]))), (key, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_holds_nothing_that_the_front_end_would_take_for_a_command(language: str) -> None:
    # Its messages are templates: {…} is a value, @ a link to another message, | parts plural forms. Our own messages
    # (asyncVaeDecode) are filled in by ourselves.
    for file in FILES:
        for key, text in texts(load(language, file)):
            if key[0] != "asyncVaeDecode":
                assert not set("{}@|") & set(text), (language, key)


def test_has_every_command_setting_and_message_of_the_browser_modules() -> None:
    scripts = REPOSITORY / "web" / "js"
    said, settings = ((scripts / name).read_text("utf-8") for name in ("texts.js", "settings.js"))
    commands = re.findall(r'^  "(AsyncVAEDecode\.\w+)":', said, re.MULTILINE)
    ids = re.findall(r': "(AsyncVAEDecode\.\w+\.\w+)"', settings)
    messages = dict(re.findall(r'^  (\w+): "(.+)",$', said.split("MESSAGES = {")[1].split("\n}")[0], re.MULTILINE))

    assert commands and ids and messages
    assert sorted(load("en", "commands")) == sorted(name.replace(".", "_") for name in commands)
    assert sorted(load("en", "settings")) == sorted(name.replace(".", "_") for name in ids)
    # What helps saving is said by the inputs that a node has, not in one sentence for all.
    about_saving = dict(re.findall(r"(\w+): \"(saving\w+)\"", said.split("ABOUT_SAVING = {")[1].split("}")[0]))
    assert set(about_saving) < set(ADVICE) and set(about_saving.values()) < set(messages)
    advice = {code: text for code, text in ADVICE.items() if code not in about_saving}
    assert load("en", "main")["asyncVaeDecode"] == {**messages, "advice": advice}


def test_the_view_speaks_of_memory_and_vae_decode_as_users_do() -> None:
    ours = re.compile(r"\bhost\b|\bring\b|\bstock's\b")
    assert [text for _, text in texts(load("en", "main")) if ours.search(text)] == []


def test_english_says_what_the_nodes_say(client: Client) -> None:
    told = {}
    for name, node in client.object_info().items():
        if not name.startswith("Async"):
            continue
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        told[name] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {key: {"tooltip": spec[1]["tooltip"]} for key, spec in inputs.items()},
            "outputs": {str(place): {"tooltip": tip} for place, tip in enumerate(node["output_tooltips"])},
        }

    english = load("en", "nodeDefs")
    assert english == told
    # In the order of the widgets, which the help pages follow.
    assert [list(node["inputs"]) for node in english.values()] == [list(told[name]["inputs"]) for name in english]


def test_server_gives_them_to_the_front_end(client: Client) -> None:
    served = client.get("/i18n")

    for language in LANGUAGES:
        for file in FILES[1:]:
            given = served[language][file]
            assert {key: given[key] for key in load(language, file)} == load(language, file)
        assert served[language]["asyncVaeDecode"] == load(language, "main")["asyncVaeDecode"]
