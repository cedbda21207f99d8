"""README and help pages: they say the same, name every input, and point at what is there."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from async_decode.__main__ import main

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
DOCS = REPOSITORY / "web" / "docs"
ENGLISH = json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
LANGUAGES = ("en", "zh", "ja")
PAGES = [(node, language) for node in ENGLISH for language in LANGUAGES]
#: What README's table of VAE families says, in the words of each language.
WORDS = {
    "en": {},
    "zh": {
        "pieces": "分段",
        "whole": "整体",
        "batches": "分批",
        "exact": "精确",
        "bounded": "有界",
        "the part at the latent's resolution runs on the whole clip": "潜空间分辨率的部分在整段视频上运行",
        "makes its frames in one go": "一次生成全部帧",
        "the part below half resolution runs on the whole clip": "低于一半分辨率的部分在整段视频上运行",
        "decodes the images of a batch together": "同一批图像一起解码",
    },
    "ja": {
        "pieces": "分割",
        "whole": "一括",
        "batches": "バッチ",
        "exact": "厳密",
        "bounded": "一定",
        "the part at the latent's resolution runs on the whole clip": "潜在表現の解像度の部分がクリップ全体で動く",
        "makes its frames in one go": "全フレームを一度に作る",
        "the part below half resolution runs on the whole clip": "半分未満の解像度の部分がクリップ全体で動く",
        "decodes the images of a batch together": "バッチの画像をまとめてデコードする",
    },
}


def page(node: str, language: str) -> str:
    """A help page, at the place where ComfyUI's front end asks for it."""
    file = DOCS / f"{node}.md" if language == "en" else DOCS / node / f"{language}.md"
    return file.read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, its own heading and ruler left out."""
    section = re.split(r"^## ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def headings(text: str) -> list[str]:
    """The second-level headings."""
    return re.findall(r"^## .+$", text, re.MULTILINE)


def test_there_is_a_page_for_every_node_and_none_besides() -> None:
    found = sorted(str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md"))
    expected = [f"{node}.md" for node in ENGLISH] + [f"{node}/{other}.md" for node in ENGLISH for other in ("ja", "zh")]
    assert found == sorted(expected)


@pytest.mark.parametrize(("node", "language"), PAGES)
def test_page_explains_every_input_as_the_node_does(node: str, language: str) -> None:
    told = json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text("utf-8"))[node]
    text = page(node, language)

    table = rows(text, headings(text)[0])

    assert [row[0].strip("`") for row in table] == list(told["inputs"])
    assert all(row[1] for row in table), "an input without a unit"
    assert [row[3] for row in table] == [entry["tooltip"] for entry in told["inputs"].values()]
    assert text.startswith(f"# {told['display_name']}\n")


@pytest.mark.parametrize(("node", "language"), PAGES)
def test_page_is_built_as_the_english_one(node: str, language: str) -> None:
    text, english = page(node, language), page(node, "en")

    assert len(headings(text)) == len(headings(english))
    assert text.count("\n- ") == english.count("\n- ")
    assert sorted(set(re.findall(r"`[^`]+`", text))) == sorted(set(re.findall(r"`[^`]+`", english)))


@pytest.mark.parametrize(("node", "language"), PAGES)
def test_pictures_of_a_page_are_there_and_small(node: str, language: str) -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page(node, language))

    assert pictures == [f"images/{node}.png"]
    # The front end looks for them below docs, whatever the page's language.
    assert (DOCS / pictures[0]).stat().st_size < 200_000


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", [node for node in ENGLISH if "Decode" in node])
def test_table_of_families_is_readmes(node: str, language: str) -> None:
    def said(cell: str) -> str:
        words = [WORDS[language].get(word, word) for word in cell.split(", ")]
        return (", " if language == "en" else "、").join(words)

    text = page(node, language)
    heading = headings(text)[headings(page(node, "en")).index("## VAE families")]

    expected = [[row[0], *map(said, row[1:])] for row in rows(README, "## VAE families")]

    assert len(expected) > 5
    assert rows(text, heading) == expected


def test_readme_shows_the_client_as_it_is() -> None:
    client = (REPOSITORY / "example_workflows" / "api" / "client.py").read_text("utf-8")
    section = README.split("\n## From another program\n")[1].split("\n## ")[0]

    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)

    assert code.strip() in client


def test_code_in_readme_is_python() -> None:
    codes = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    assert codes
    for code in codes:
        ast.parse(code)


def test_links_and_pictures_in_readme_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README)
    local = [target for target in targets if "://" not in target]

    assert local
    assert [target for target in local if not (REPOSITORY / target).exists()] == []


def test_commands_in_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"python -m async_decode (\w+)", README))
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out

    assert {"demo", "example"} <= named
    assert [command for command in named if command not in listed] == []


def test_readme_names_every_node_and_input() -> None:
    for node in ENGLISH.values():
        assert f"**{node['display_name']}**" in README
        for name in node["inputs"]:
            assert re.search(rf"\b{name}\b", README), name
