"""README, pages and help pages: they say the same, name every input, and point at what is there."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from async_decode.__main__ import main
from async_decode.sinks import VIDEO_FORMATS

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
DOCS = REPOSITORY / "web" / "docs"
ENGLISH = json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
LANGUAGES = ("en", "zh", "ja")
PAGES = [(node, language) for node in ENGLISH for language in LANGUAGES]
#: Pages that are no node's, by their names below docs.
TOPICS = sorted(file.stem for file in DOCS.glob("*.md") if file.stem not in ENGLISH)
#: Everything that is read on GitHub, by its path.
DOCUMENTS = {
    file.relative_to(REPOSITORY).as_posix(): file.read_text("utf-8")
    for file in [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((REPOSITORY / "tests").rglob("*.md"))]
}
#: The most that is still read, in characters.
README_LENGTH = 9000
FAMILIES = (DOCS / "vae-families.md").read_text("utf-8")
#: Who is compared in README's first table.
ARMS = ("stock", "asynchronous")
RESULTS = REPOSITORY / "tests" / "benchmarks" / "results"
#: What the table of VAE families says, in the words of each language.
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
    section = re.split(r"^##? ", f"\n{text}".split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def headings(text: str) -> list[str]:
    """The second-level headings."""
    return re.findall(r"^## .+$", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What links can point at in a page: its headings, as GitHub names them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_is_a_page_for_every_node() -> None:
    found = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")} - {f"{topic}.md" for topic in TOPICS}
    expected = [f"{node}.md" for node in ENGLISH] + [f"{node}/{other}.md" for node in ENGLISH for other in ("ja", "zh")]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(("node", "language"), PAGES)
def test_page_explains_every_input_as_the_node_does(node: str, language: str) -> None:
    told = json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text("utf-8"))[node]
    text = page(node, language)

    table = rows(text, headings(text)[0]) if told["inputs"] else []

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

    assert pictures == ([f"images/{node}.png"] if ENGLISH[node]["inputs"] else [])
    # The front end looks for them below docs, whatever the page's language.
    assert all((DOCS / picture).stat().st_size < 200_000 for picture in pictures)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", [node for node in ENGLISH if "Decode" in node])
def test_table_of_families_is_the_same_everywhere(node: str, language: str) -> None:
    def said(cell: str) -> str:
        words = [WORDS[language].get(word, word) for word in cell.split(", ")]
        return (", " if language == "en" else "、").join(words)

    text = page(node, language)
    heading = headings(text)[headings(page(node, "en")).index("## VAE families")]

    expected = [[row[0], *map(said, row[1:])] for row in rows(FAMILIES, "# VAE families")]

    assert len(expected) > 5
    assert rows(text, heading) == expected


def test_readme_is_short() -> None:
    assert len(README) <= README_LENGTH


def test_readme_names_every_node_and_links_every_page() -> None:
    for node in ENGLISH.values():
        assert f"**{node['display_name']}**" in README
    linked = set(re.findall(r"\]\(web/docs/([\w.-]+)\.md", README))
    assert linked == {*ENGLISH, *TOPICS}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_code_is_python(path: str) -> None:
    for code in re.findall(r"```python\n(.*?)```", DOCUMENTS[path], re.DOTALL):
        ast.parse(code)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_pictures_and_anchors_are_there(path: str) -> None:
    # The front end looks for the pictures of a translated help page below docs, as the test above says.
    folder = DOCS if re.fullmatch(r"web/docs/\w+/\w+\.md", path) else (REPOSITORY / path).parent
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", DOCUMENTS[path]):
        if "://" in target:
            continue
        file = (folder / target).resolve() if target else REPOSITORY / path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text("utf-8")), f"{target}#{anchor}"


def test_every_picture_is_shown() -> None:
    # Icon and banner are the registry's.
    shown = (REPOSITORY / "pyproject.toml").read_text("utf-8") + "".join(DOCUMENTS.values())
    assert [file.name for file in (DOCS / "images").glob("*.png") if f"images/{file.name}" not in shown] == []


def test_commands_that_are_named_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = {name for text in DOCUMENTS.values() for name in re.findall(r"python -m async_decode ([a-z]\w*)", text)}
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out

    assert "demo" in named
    assert [command for command in named if not re.search(rf"^    {command}\b", listed, re.MULTILINE)] == []


def test_table_of_video_formats_is_that_of_the_code() -> None:
    def said(known: bool) -> str:
        return "yes" if known else "no"

    expected = [
        [
            name,
            video.extension,
            "10" if "10" in video.pixel_format else "8",
            said(video.alpha_format is not None),
            said(video.sound is not None),
            said(video.in_browsers),
        ]
        for name, video in VIDEO_FORMATS.items()
    ]
    table = rows((DOCS / "formats.md").read_text("utf-8"), "## Video")

    assert [[*row[:4], said(row[4] != "no"), row[5]] for row in table] == expected


def test_first_table_says_what_was_measured() -> None:
    (case,) = json.loads((RESULTS / "gpu-h200" / "stock.json").read_text("utf-8"))["cases"]
    seconds = {arm["arm"]: arm["mean"] for arm in case["arms"]}
    memory = json.loads((RESULTS / "gpu-h100" / "memory.json").read_text("utf-8"))["memory"]
    stock, ours = ({run["arm"].split(",")[0]: run for run in memory if run["frames"] == 641}[arm] for arm in ARMS)
    table = [re.findall(r"\d+(?:\.\d+)?(?= s| MiB)", line) for line in README.splitlines() if line.startswith("| ")]

    assert table[2:7] == [
        *([f"{seconds[f'{arm}, {saving}']:.1f}" for arm in ARMS] for saving in ("png4@14/6", "h264-veryfast", "image")),
        [f"{(run['device_peak'] - run['device_before']) / 2**20:.0f}" for run in (stock, ours)],
        [f"{run['resident_peak'] / 2**20:.0f}" for run in (stock, ours)],
    ]


def test_figures_of_the_faster_decoder_are_those_that_were_measured() -> None:
    measured = set()
    for machine in ("gpu-h100", "gpu-h200", "gpu-h200-x2"):
        for family in json.loads((RESULTS / machine / "decoder.json").read_text("utf-8"))["timed"]:
            for run in family["timed"]:
                assert all(run["equal"])
                # A short one is told more finely.
                seconds = [
                    f"{run[name]:.{3 if run['stock_seconds'] < 0.1 else 2}f} s" for name in ("stock_seconds", "seconds")
                ]
                peak = run["peak_bytes"] / run["peak_bytes_stock"]
                measured.add((*seconds, f"{run['of_stock']:.2f}", f"{peak:.2f}"))
    told = [tuple(row[2:]) for row in rows((DOCS / "decoder.md").read_text("utf-8"), "## Figures")]

    assert told and [row for row in told if row not in measured] == []
