"""The repository checks itself: floors, unsafe code, words, and what is public."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import candleshm

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / "python" / "candleshm"
CORE = ROOT / "rust" / "candleshm" / "src"
STREAM = ROOT / "rust" / "candleshm-stream" / "src"
RECORDING = ROOT / "rust" / "candleshm-recording" / "src"
DAILY = ROOT / "rust" / "candleshm-daily" / "src"
SOURCES = sorted(path for folder in ("python", "rust", "tests", "benches") for path in (ROOT / folder).rglob("*.py"))

# Spelled so that this file does not hold them.
UNFINISHED = [rf"\b{first}{rest}\b" for first, rest in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"))]


def drawn_floors(language: str) -> list[set[str]]:
    """Return the floors that ARCHITECTURE.md draws for a language, the lowest first."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    drawing = re.split(rf"^{language}, .*\n+```text\n", page, maxsplit=1, flags=re.MULTILINE)[1].split("```")[0]
    return [set(re.split(r"\s{2,}", line)[0].split()) for line in reversed(drawing.splitlines())]


# A folder, or a module beside the folders, imports only from floors below its own.
PYTHON_FLOORS = drawn_floors("Python")
RUST_FLOORS = {
    CORE: drawn_floors("Rust"),
    STREAM: drawn_floors("Streams"),
    RECORDING: drawn_floors("Recordings"),
    DAILY: drawn_floors("Daily files"),
}


def floor_of(module: str, floors: list[set[str]]) -> int:
    """Return the floor a module stands on; what is not named stands above them all."""
    return next((number for number, floor in enumerate(floors) if module in floor), len(floors))


def python_imports(path: Path) -> set[str]:
    """Return the dotted modules of the package that a file imports, for typing or for real."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "candleshm":
            module = (node.module or "").removeprefix("candleshm").removeprefix(".")
            for alias in node.names:
                dotted = f"{module}.{alias.name}".removeprefix(".")
                inside = PYTHON / dotted.replace(".", "/")
                found.add(dotted if inside.is_dir() or inside.with_suffix(".py").exists() else module)
    return found - {""}


PYTHON_FILES = {
    ".".join(path.relative_to(PYTHON).with_suffix("").parts): path
    for path in sorted(PYTHON.rglob("*.py"))
    if path.name != "__init__.py"
}


def test_every_module_stands_on_a_floor_that_is_drawn() -> None:
    rooms = {path.stem for path in PYTHON.iterdir() if not path.name.startswith("__") and path.suffix != ".typed"}
    assert set.union(*PYTHON_FLOORS) == {room.split(".")[0] for room in rooms} | {"_core"}
    for sources, floors in RUST_FLOORS.items():
        assert set.union(*floors) == {path.stem for path in sources.iterdir()} - {"lib"}


def test_every_python_module_imports_downwards() -> None:
    assert len(PYTHON_FILES) > 100
    for module, path in PYTHON_FILES.items():
        room = module.split(".")[0]
        for imported in {name.split(".")[0] for name in python_imports(path)} - {room}:
            assert floor_of(imported, PYTHON_FLOORS) < floor_of(room, PYTHON_FLOORS), f"{path}: imports {imported}"


def test_no_python_modules_import_each_other_in_a_circle() -> None:
    graph = {module: python_imports(path) & set(PYTHON_FILES) for module, path in PYTHON_FILES.items()}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("sources", list(RUST_FLOORS), ids=lambda sources: sources.parent.name)
def test_every_rust_module_uses_downwards(sources: Path) -> None:
    floors = RUST_FLOORS[sources]
    files = [path for path in sources.rglob("*.rs") if path.name != "lib.rs"]
    for path in files:
        module = path.relative_to(sources).parts[0].removesuffix(".rs")
        code = path.read_text().split("#[cfg(test)]")[0]
        used = set(re.findall(r"^(?:\s*)(?:pub )?use crate::(\w+)", code, re.MULTILINE))
        for other in used - {module}:
            assert floor_of(other, floors) < floor_of(module, floors), f"{path}: uses {other}"


def test_protocol_of_streams_is_pure() -> None:
    for name in ("frames", "handshake", "session"):
        code = re.sub(r"//.*", "", (STREAM / f"{name}.rs").read_text())
        assert not re.search(r"std::net|mio::|std::env|SystemTime|Instant", code), name


def test_core_has_no_python_no_network_and_a_clock_for_readers_only() -> None:
    for path in CORE.rglob("*.rs"):
        code = re.sub(r"//.*", "", path.read_text())
        assert not re.search(r"pyo3|std::net|std::env|SystemTime", code), path
        assert CORE / "feed" in path.parents or not re.search(r"\bInstant\b|clock_gettime", code), path


def test_unsafe_code_stands_in_three_files_and_at_the_border_to_c() -> None:
    with_unsafe = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rust").rglob("src/*.rs")
        if re.search(r"\bunsafe\b(?!_)", re.sub(r"//.*", "", path.read_text()).replace("unsafe_code", ""))
    }
    binding = "rust/candleshm-python/src"
    beside_c = {path for path in with_unsafe if not path.startswith("rust/candleshm-c/")}
    assert beside_c == {"rust/candleshm/src/shared_memory.rs", f"{binding}/array.rs", f"{binding}/descriptor.rs"}


def test_memory_that_was_never_set_is_not_lent_as_numbers() -> None:
    code = (ROOT / "rust" / "candleshm-python" / "src" / "array.rs").read_text()
    functions = [part for part in re.split(r"^(?=pub\(crate\) fn )", code, flags=re.MULTILINE) if "::new(py, " in part]
    assert len(functions) == 1
    for function in functions:
        assert "&mut [MaybeUninit<f64>]" in function
        assert "as_slice_mut" not in function


def test_words_that_announce_are_stored_and_read_as_announcements() -> None:
    words = "COMMIT_SEQ|CLOSE_SEQ|READY|UNIVERSE_BAR"
    owners = {"soundness.rs", "opening.rs"}  # they read what a dead owner left, and nobody writes
    for path in [*CORE.rglob("*.rs"), *(ROOT / "rust" / "candleshm-python" / "src").glob("*.rs")]:
        code = re.sub(r"//.*", "", path.read_text())
        assert not re.search(rf"header\(header::(?:{words})\)\s*\.(?:store|load)", code), path
        if path.name not in owners:
            assert not re.search(rf"value\(header::(?:{words})\)", code), path


def test_the_predecessors_vocabulary_stays_in_its_room() -> None:
    words = (
        r"America(?:/|%2F)?New_York|CANDLELITE|BINANCE_(?:CACHE|CANDLE)|trading_(?:on|off|all)\b|%d/%m/%Y|\b(?:SUC|WARN):"
        r"|DOWNLOAD (?:CANDLE|%)|COMPLETE (?:DOWNLOAD|VERIFY|PREPARE)|\bLOG_(?:DIRPATH|FILE_LEVEL|CONSOLE_LEVEL)\b"
    )
    speaking_of_it = {"docs/api.md", "docs/migrating.md", "docs/logs.md", "docs/decisions/settings.md"}
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "rust").rglob("src/*.rs"), *PYTHON.rglob("*.py")]
    for path in pages:
        where = path.relative_to(ROOT).as_posix()
        if "/compat/" in where or where in speaking_of_it:
            continue
        code = path.read_text().split("#[cfg(test)]")[0]
        found = re.search(words, code)
        assert found is None, f"{where}: `{found and found[0]}` belongs into compat/"


def test_only_commands_and_candle_server_set_levels_and_handlers() -> None:
    allowed = {PYTHON / "commands" / "log.py", PYTHON / "compat" / "log_files.py"}
    # The simulated exchange silences a logger of its own, which it hands to its websocket library.
    modules = {path for module, path in PYTHON_FILES.items() if not module.startswith("sim.")}
    for path in modules - allowed:
        code = path.read_text().replace('getLogger("candleshm"), "candleshm-spot-1m")', "")  # an example
        assert not re.search(r"\.setLevel\(|basicConfig\(|\.propagate =|\.addHandler\(", code), path
        assert not re.search(r"getLogger\((?!__name__\))", code), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_unfinished_words(path: Path) -> None:
    assert not re.search("|".join(UNFINISHED), path.read_text())


def test_no_drawers_without_a_name() -> None:
    for path in SOURCES:
        assert path.stem not in {"utils", "util", "helpers", "misc", "common"}, path


ATTRIBUTES_MAX = 16


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Return the instance attributes that a class assigns, without the fields that a dataclass declares."""
    declared = {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Store)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    } - declared


def test_no_class_becomes_a_hall() -> None:
    counts = {
        f"{path.stem}.{node.name}": len(attributes_of(node))
        for path in PYTHON_FILES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert len(counts) > 100
    too_many = {name: count for name, count in counts.items() if count > ATTRIBUTES_MAX}
    assert too_many == {}


def test_public_names_are_the_ones_listed() -> None:
    public = {name for name in vars(candleshm) if not name.startswith("_")} - {"TYPE_CHECKING", "importlib"}
    modules = {path.stem for path in PYTHON.iterdir() if not path.name.startswith("_")}
    assert public - modules <= set(candleshm.__all__)
    assert dir(candleshm) == sorted(candleshm.__all__)
    assert all(hasattr(candleshm, name) for name in candleshm.__all__)
    assert sorted(set(candleshm.__all__)) == sorted(candleshm.__all__)


def test_attaching_does_not_load_the_network() -> None:
    code = "import sys, candleshm; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", candleshm.__all__)
def test_public_names_explain_themselves(name: str) -> None:
    value = getattr(candleshm, name)
    assert isinstance(value, int) or (value.__doc__ or "").strip()


def test_every_error_is_in_the_drawing_of_its_module() -> None:
    drawing = candleshm.errors.__doc__ or ""
    for name in candleshm.errors.__all__:
        error = getattr(candleshm.errors, name)
        assert issubclass(error, candleshm.CandleShmError)
        assert re.search(rf"\b{name}\b", drawing), name
        assert name in candleshm.__all__
        builtin = next((base for base in error.__mro__ if base.__module__ == "builtins"), None)
        if builtin is not Exception:
            line = next(line for line in drawing.splitlines() if re.search(rf"\b{name}\b", line))
            assert builtin is not None
            assert builtin.__name__ in line


def test_every_test_that_the_page_of_failures_names_exists() -> None:
    page = (ROOT / "docs" / "failures.md").read_text()
    written = "".join(path.read_text() for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "rust").rglob("*.rs")])
    named = set(re.findall(r"`((?:test_)?[a-z0-9]+(?:_[a-z0-9]+){2,})`", page))
    assert len(named) > 50
    assert [name for name in sorted(named) if not re.search(rf"(?:def|fn) {name}\(", written)] == []
