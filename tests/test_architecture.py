"""The rules of the design that hold for every file: read from the sources, not from what they do."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRINCIPAL_MAKERS = {"agentws/edge/auth.py", "agentws/store/nodes.py"}
CONTRACTS = {"imports go one way", "agents know ports and tools only"}
MOST_LINES, MOST_OF_A_FUNCTION, MOST_OF_A_CLASS = 400, 50, 250
# Longer than the rule allows, and still to be cut.

MUTABLE = {"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict", "ChainMap"}
MUTABLE |= {"WeakSet", "WeakKeyDictionary", "WeakValueDictionary"}
MUTATORS = {"append", "appendleft", "extend", "insert", "add", "update", "setdefault", "pop", "popleft", "popitem"}
MUTATORS |= {"remove", "discard", "clear", "sort", "reverse", "__setitem__", "__delitem__"}

SQL = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE)\s|\b(?i:select\s.*\sfrom|insert\s+into|update\s+\S+\s+set|delete\s+from)\s",
    re.DOTALL,
)


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the root, its text and its tree."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def sources(*places: str) -> list[Source]:
    paths = sorted(path for place in places for path in (ROOT / place).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


PRODUCT = sources("agentws")
ALL = sources("agentws", "tests", "scripts")

product = pytest.mark.parametrize("source", PRODUCT, ids=[source.path for source in PRODUCT])
everything = pytest.mark.parametrize("source", ALL, ids=[source.path for source in ALL])


def docstrings(tree: ast.Module) -> set[ast.expr]:
    """The docstrings, of attributes too: texts that stand alone."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def sql_texts(source: Source) -> Iterator[str]:
    tree = source.tree
    told = docstrings(tree)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in told
            and SQL.search(node.value)
        ):
            yield f"{source.path}:{node.lineno}: {node.value[:60]!r}"


def principal_calls(source: Source) -> Iterator[str]:
    """Calls of the constructor, and imports that would hide one under another name."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Name(id="Principal") | ast.Attribute(attr="Principal")):
                yield f"{source.path}:{node.lineno}"
            case ast.alias(name="Principal", asname=str()):
                yield f"{source.path}:{node.lineno}"


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Its lines from `def` on, less those of a function's docstring."""
    lines = (node.end_lineno or 0) - node.lineno + 1
    match node:
        case (
            ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str()) as told), *_])
            | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str()) as told), *_])
        ):
            lines -= (told.end_lineno or 0) - told.lineno + 1
    return lines


def too_long(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            most = MOST_OF_A_CLASS if isinstance(node, ast.ClassDef) else MOST_OF_A_FUNCTION
            if lines_of(node) > most:
                yield f"{source.path}: {node.name} has {lines_of(node)} lines"


def is_mutable(value: ast.expr | None) -> bool:
    match value:
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in MUTABLE
        case ast.BinOp(left=left, right=right):
            return is_mutable(left) or is_mutable(right)
    return False


def tables(tree: ast.Module) -> set[str]:
    """The names of containers that stand at module level."""
    names: set[str] = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_mutable(node.value):
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def mutations(source: Source, names: set[str]) -> Iterator[str]:
    """Where one of `names` is changed, under its own name or as an attribute of its module."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr=method)) if (
                method in MUTATORS
            ):
                changed = name
            case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), ctx=ast.Store() | ast.Del()):
                changed = name
            case ast.AugAssign(target=ast.Name(id=name)):
                changed = name
            case _:
                continue
        if changed in names:
            yield f"{source.path}:{node.lineno}: {changed}"


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names)):
                return [name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)]
    return None


def defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_imports_go_one_way_and_agents_know_ports_and_tools_only() -> None:
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports('setup.cfg', no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = {line.removesuffix(" KEPT") for line in done.stdout.splitlines() if line.endswith(" KEPT")}
    assert kept >= CONTRACTS


def test_sql_stands_in_the_store_alone() -> None:
    outside = [source for source in PRODUCT if not source.path.startswith("agentws/store/")]
    assert [found for source in outside for found in sql_texts(source)] == []


def test_a_principal_is_made_from_credentials_or_from_a_locked_row_only() -> None:
    makers = {source.path for source in PRODUCT if any(principal_calls(source))}
    assert makers == PRINCIPAL_MAKERS


@everything
def test_no_file_has_more_than_400_lines(source: Source) -> None:
    # The forty cases stand in the files that were named for them.
    if not Path(source.path).name.startswith("test_agent_handler_"):
        assert len(source.text.splitlines()) <= MOST_LINES


@everything
def test_no_function_has_more_than_50_lines_and_no_class_more_than_250(source: Source) -> None:
    assert list(too_long(source)) == []


@product
def test_the_type_checker_is_never_told_to_look_away(source: Source) -> None:
    comments = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type == tokenize.COMMENT
    ]
    assert [comment for comment in comments if re.search(r"#\s*(type:\s*ignore|mypy:)", comment)] == []


@product
def test_a_container_at_module_level_is_a_constant(source: Source) -> None:
    assert [name for name in tables(source.tree) if name != "__all__" and name != name.upper()] == []


def test_no_container_at_module_level_is_ever_changed() -> None:
    names = set().union(*(tables(source.tree) for source in PRODUCT))
    assert "CATALOGUE" in names
    assert [found for source in PRODUCT for found in mutations(source, names)] == []


@product
def test_no_function_sets_a_global(source: Source) -> None:
    assert [node.names for node in ast.walk(source.tree) if isinstance(node, ast.Global)] == []


@product
def test_a_module_says_what_it_guarantees_and_what_it_offers(source: Source) -> None:
    tree = source.tree
    if not tree.body and source.path.endswith("/__init__.py"):
        return  # It only makes its directory a package.
    assert ast.get_docstring(tree)
    if Path(source.path).name not in ("__init__.py", "__main__.py"):
        names = exported(tree)
        assert names is not None
        assert set(names) <= defined(tree)


FAULTY: list[tuple[str, int, int]] = [
    # A line of code; how many texts of SQL and how many makers of principals are found in it.
    ('run("SELECT 1")', 1, 0),
    ('run(f"DELETE FROM {table}")', 1, 0),
    ('Q = "update run set status = $1 "', 1, 0),
    ('Q = """with x as (select a\n from b ) insert into c """', 1, 0),
    ('"""A docstring may SELECT what it tells."""', 0, 0),
    ('text = "select one of these, from what you update"', 1, 0),
    ('text = "Updated: insert a coin"', 0, 0),
    ("p = Principal('', 'u')", 0, 1),
    ("p = context.Principal('', 'u')", 0, 1),
    ("from agentws.core.context import Principal as P", 0, 1),
    ("def f(p: Principal) -> Principal: ...", 0, 0),
]


@pytest.mark.parametrize(("code", "texts", "makers"), FAULTY)
def test_the_rules_see_what_breaks_them(code: str, texts: int, makers: int) -> None:
    source = Source("bad.py", code)
    assert (len(list(sql_texts(source))), len(list(principal_calls(source)))) == (texts, makers)


@pytest.mark.parametrize(
    ("code", "names", "changes"),
    [
        ("SEEN = {}\ndef f() -> None: SEEN['a'] = 1", {"SEEN"}, 1),
        ("SEEN: dict[str, int] = dict()\ndef f() -> None: SEEN.update(a=1)", {"SEEN"}, 1),
        ("SEEN = [1] + [2]\nSEEN += [3]", {"SEEN"}, 1),
        ("SEEN = weakref.WeakSet()\ndef f() -> None: del x.SEEN['a']", {"SEEN"}, 1),
        ("SEEN = {each for each in ()}\ndef f() -> bool: return 1 in SEEN", {"SEEN"}, 0),
        ("SEEN = frozenset({1})\nLIMIT = 5\nNAMES = (1, 2)", set(), 0),
        ("def f() -> None:\n    seen = []\n    seen.append(1)", set(), 0),
    ],
)
def test_the_rules_see_containers_that_change(code: str, names: set[str], changes: int) -> None:
    source = Source("bad.py", code)
    assert tables(source.tree) == names
    assert len(list(mutations(source, names))) == changes


@pytest.mark.parametrize(("lines", "found"), [(49, 0), (50, 1)])
@pytest.mark.parametrize("prefix", ["", "async "])
def test_the_rules_count_lines_without_the_docstring(prefix: str, lines: int, found: int) -> None:
    code = f'{prefix}def f():\n    """One\n    two."""\n' + "    pass\n" * lines
    assert len(list(too_long(Source("bad.py", code)))) == found
    whole = "class C:\n" + "    a = 1\n" * (lines + 200)
    assert len(list(too_long(Source("bad.py", whole)))) == found
