import ast
import builtins
import subprocess
import sys

import pytest

PACKAGES = ("contracts", "lake", "quality", "flows")
HEAVY = ("prefect", "ccxt", "pandera", "boto3", "pandas", "aiohttp")
FILE_LINES, FUNCTION_LINES = 500, 60


@pytest.fixture(scope="module")
def sources(project):
    paths = [path for package in PACKAGES for path in sorted((project / package).rglob("*.py"))]
    assert len(paths) > 20
    return {str(path.relative_to(project)): path.read_text() for path in paths}


@pytest.fixture(scope="module")
def definitions(sources):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [
        (f"{path}:{node.lineno} {node.name}", node)
        for path, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds)
    ]


def test_no_file_is_too_long(sources):
    long = {path: len(text.splitlines()) for path, text in sources.items()}
    assert {path: lines for path, lines in long.items() if lines > FILE_LINES} == {}


def test_no_function_is_too_long(definitions):
    lengths = {
        where: node.end_lineno - node.lineno + 1
        for where, node in definitions
        if not isinstance(node, ast.ClassDef)
    }
    assert {where: lines for where, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_everything_public_has_a_docstring(sources):
    bare = [path for path, text in sources.items() if not ast.get_docstring(ast.parse(text))]
    bare = [path for path in bare if sources[path].strip()]
    for path, text in sources.items():
        bare += [f"{path} {name}" for name in _undocumented(ast.parse(text))]
    assert bare == []


def _undocumented(tree):
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{name}" for name in _undocumented(node))


def test_importing_lake_loads_nothing_heavy(project):
    code = f"import sys, lake; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["contracts.validate", "quality.bars", "quality.quarantine"])
def test_audits_and_contracts_load_nothing_heavy(project, module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_errors_are_raised_from_the_tree_only(sources):
    """A built-in error may be a signal inside a file that also catches it, no more."""
    allowed = {"NotImplementedError", "StopIteration", "AttributeError"}
    found = []
    for path, text in sources.items():
        nodes = list(ast.walk(ast.parse(text)))
        handlers = [n.type for n in nodes if isinstance(n, ast.ExceptHandler) and n.type]
        caught = {n.id for kind in handlers for n in ast.walk(kind) if isinstance(n, ast.Name)}
        for node in nodes:
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind = node.exc.func
                if isinstance(kind, ast.Name) and kind.id in _BUILTIN_ERRORS - allowed - caught:
                    found.append(f"{path}:{node.lineno} {kind.id}")
    assert found == []


_BUILTIN_ERRORS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception)
}


DELETERS = {
    "lake/vacuum.py": "the one wrapper that deletes data files",
    "lake/store.py": "how an object is deleted",
    "lake/store_folder.py": "how a file is deleted, and what it staged itself",
    "lake/leases.py": "its own lease",
    "lake/locks.py": "its own lock",
    "lake/lockfile.py": "what it staged beside a strategy",
    "lake/probe.py": "its own probes",
    "lake/doctor.py": "the object by which it asks the store for the time",
    "flows/runs.py": "the note of a run that has ended",
    "flows/demo_stage.py": "the demo's own lake",
}
_DELETING = {"delete", "delete_unless_newer", "unlink", "rmtree", "rmdir", "delete_object"}
_NEVER = {"vacuum", "cleanup_metadata", "delete_objects", "compact", "z_order", "repair", "restore"}


def test_nothing_but_the_vacuum_deletes_what_is_not_its_own(sources):
    found = {path for path, name in _called(sources) if name in _DELETING}
    assert found <= set(DELETERS)
    callers = {path for path, name in _called(sources) if name == "delete_unless_newer"}
    assert callers == {"lake/vacuum.py", "lake/store.py"}


def test_nothing_calls_deltas_own_destroyers(sources):
    assert [(path, name) for path, name in _called(sources) if name in _NEVER] == []


def _called(sources):
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield path, node.func.attr
