"""Language: American spelling, and none of the idioms and local names that this project has retired.

Every failure names file, line and the wording to use. `-k training` looks at the files of one folder.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import saliency_pipeline

ROOT = Path(__file__).parents[1]
PACKAGE = Path(saliency_pipeline.__file__).parent
# in a checkout models and cli are links, which rglob does not follow
FOLDERS = (PACKAGE, PACKAGE / "models", PACKAGE / "cli", ROOT / "tests")
CODE = sorted({path for folder in FOLDERS for path in folder.rglob("*.py")} - {Path(__file__)})
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *PACKAGE.rglob("*.html"), *PACKAGE.rglob("*.css")])

SPELLING = {
    r"analys(?=e[dr]?\b|ing)": "analyz",
    r"artefact": "artifact",
    r"behaviour": "behavior",
    r"cancell(?=ing|ation)": "cancel",
    r"centre(?=[ds]?\b|_)": "center",
    r"colour(?=$|[^e])": "color",
    r"colour(?=e[dr])": "color",
    r"favour": "favor",
    r"grey(?!s\b|hound)": "gray",
    r"honour": "honor",
    r"labell(?=ed|ing)": "label",
    r"licence": "license",
    r"modell(?=ed|ing)": "model",
    r"neighbour": "neighbor",
    r"travell(?=ed|ing)": "travel",
    # "initialise", "optimiser", "normalisation"; other words in -is, as "promise" or "precision", are spelled so
    # shards of the gradient methods store the convention "... of the normalised frame", which is part of their plan
    r"(?<=initial|general|regular|serial|visual|minim|maxim|optim|organ|recogn|normal|summar|standard|harmon)"
    r"is(?!ed frame\")(?=e|ing|ation)": "iz",
    r"(?<=synchron|quant|binar|token|util|character|factor|random|parallel|vector|local|penal)is(?=e|ing|ation)": "iz",
}
IDIOMS = {
    r"(?<![A-Za-z])told(?![A-Za-z])": "a verb that fits, such as 'receives' or 'is passed'",
    # "which images a run validates" is another construction: there a verb follows
    r"\b(images|files|bytes|[KMG]i?B|rows|lines|maps|frames|targets) an? "
    r"(image|shard|class|second|file|row|frame|pixel|run|cell|epoch)(?=[^\w ]|$| (by|at|on|in|and|or)\b)": (
        "'per', as in 'images per shard'"
    ),
    r"(?<![A-Za-z])held[ _]against(?![A-Za-z])": "'compared with'",
    # shards store the reason "passed over beside train and val"
    r"\bpass(ed|ing) over\b(?! beside)": "'skip'",
    r"\bgo(es)? on\b": "'continue'",
}
VAGUE = {
    "found": "duplicates, match, error",
    "told": "config, message, calls",
    "given": "args, options, path",
    "known": "names, columns, entry",
    "about": "description, shards, source",
    "what": "label, kind, purpose",
}
FIRST_WORDS = {
    "Of": "say what it is: 'SGD momentum', not 'Of SGD'",
    "Whether": "'True if ...' or 'Return whether ...'; of an option, what it does",
}


def compiled(table: dict[str, str], flags: re.RegexFlag) -> list[tuple[re.Pattern[str], str]]:
    """Patterns with the wording to use instead. Python's lookbehind takes no alternatives of different lengths."""
    pairs = []
    for pattern, better in table.items():
        if alternatives := re.match(r"\(\?<=([a-z|]+)\)", pattern):
            pattern = rf"(?:{alternatives[1]})" + pattern.removeprefix(alternatives[0])
            better = f"...{better}..."
        pairs.append((re.compile(pattern, flags), better))
    return pairs


RETIRED = [
    *((pattern, f"spell it '{better}...'") for pattern, better in compiled(SPELLING, re.IGNORECASE)),
    *((pattern, f"use {better}") for pattern, better in compiled(IDIOMS, re.NOFLAG)),
]
# one case-sensitive pattern for lower-case text, as most files hold no retired word
ANY = re.compile("|".join(pattern.pattern.lower() for pattern, _ in RETIRED))


def name(path: Path) -> str:
    """The path in the checkout; that of an installed module begins with the package."""
    return path.relative_to(ROOT if path.is_relative_to(ROOT) else PACKAGE.parent).as_posix()


def retired_words(text: str) -> Iterator[tuple[int, str]]:
    """Number of every line that holds a retired word, and the better wording."""
    if not ANY.search(text.lower()):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not ANY.search(line.lower()):
            continue
        for pattern, better in RETIRED:
            if match := pattern.search(re.sub(r"https?://\S+", "", line)):
                yield number, f"{match[0]!r}: {better}"


def vague_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Assignments to names that do not say what they hold; attributes and fields of classes may be called so."""
    fields = {
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields
        if stored and node.id in VAGUE:
            yield node.lineno, f"local '{node.id}': say what it is, such as {VAGUE[node.id]}"


def first_words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings and help texts that begin in the middle of a sentence."""
    for node in ast.walk(tree):
        beginnings: list[tuple[int, str | None]] = []
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            beginnings.append((getattr(node, "lineno", 1), ast.get_docstring(node)))
        elif isinstance(node, ast.Call):
            helps = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
            if isinstance(node.func, ast.Name) and node.func.id == "setting":
                helps += node.args[1:2]
            beginnings += [(value.lineno, text(value)) for value in helps]
        for line, beginning in beginnings:
            word = (beginning or "").partition(" ")[0]
            if word in FIRST_WORDS:
                yield line, f"{(beginning or '').splitlines()[0]!r:.60}: {FIRST_WORDS[word]}"


def text(node: ast.expr) -> str:
    """The beginning of a string or f-string."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return str(node.value) if isinstance(node, ast.Constant) else ""


def report(path: Path, failures: list[tuple[int, str]]) -> None:
    if failures:
        pytest.fail("\n".join(f"{name(path)}:{line}: {failure}" for line, failure in sorted(failures)), pytrace=False)


@pytest.mark.parametrize("path", CODE, ids=name)
def test_code_uses_the_words_of_the_field(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    report(path, [*retired_words(source), *vague_names(tree), *first_words(tree)])


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_pages_use_the_words_of_the_field(path: Path) -> None:
    report(path, list(retired_words(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "line",
    [
        "Colourful and normalised images of the centre, analysed by an optimiser",
        "the run is told its seed",
        "128 images a shard",
        "found = 1",
        "for known, _ in pairs: pass",
        'def f():\n    """Whether it is so."""',
        'option("--momentum", help="Of SGD.")',
        'field: float = setting(0.9, "Of SGD.")',
    ],
)
def test_retired_words_are_recognized(line: str) -> None:
    code = "=" in line or ":" in line
    tree = ast.parse(line if code else "")
    assert [*retired_words(line), *vague_names(tree), *first_words(tree)]


@pytest.mark.parametrize(
    "line",
    [
        "future.cancelled(); cmap='Greys'; precise, promised, otherwise",
        "analyses of variance; the analysis; a catalogue; comprised, raised, exercise, noise, likewise",
        "self.found = 1",
        "class Match:\n    found: int = 0",
        'def f():\n    """Return whether it is so."""',
        "one image and a shard, files and a run; which images a run validates; in one pass over the data",
    ],
)
def test_other_words_pass(line: str) -> None:
    code = "=" in line or ":" in line
    tree = ast.parse(line if code else "")
    assert not [*retired_words(line), *vague_names(tree), *first_words(tree)]
