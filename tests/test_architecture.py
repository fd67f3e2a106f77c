"""The structure of the package, read from its sources: imports, privacy, words, room to read."""

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import whence

ROOT = Path(whence.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
TEXTS = {path: path.read_text() for path in SOURCES}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCES}


def of_every_source(check):
    """Return a test of all sources that names those of which a check does not hold."""

    def test():
        failures = []
        for path in SOURCES:
            try:
                check(path)
            except AssertionError as error:
                failures.append(f"{path.relative_to(ROOT)}: {error}")
        assert not failures, "\n".join(failures)

    return test


# --- imports ------------------------------------------------------------------------------------


def imported(name):
    """Yield ``(module, name or None)`` for what a module imports from whence, anywhere in it."""
    for node in ast.walk(TREES[MODULES[name]]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports by a relative name"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner, None
                else:
                    yield node.module, alias.name


def graph():
    return {
        name: {m for m, _ in imported(name) if m in MODULES and m != name}
        for name in MODULES
    }


def cycles(edges):
    """Return strongly connected components of more than one module (Tarjan 1972)."""
    order, low, stack, found = {}, {}, [], []

    def visit(v):
        order[v] = low[v] = len(order)
        stack.append(v)
        for w in edges[v]:
            if w not in order:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], order[w])
        if low[v] == order[v]:
            component = []
            while component[-1:] != [v]:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for v in edges:
        if v not in order:
            visit(v)
    return found


def test_no_import_closes_a_circle():
    """Imports inside functions and for types count too."""
    assert cycles(graph()) == []


def test_the_test_for_circles_finds_one():
    edges = graph()
    edges["whence.jets"] = {*edges["whence.jets"], "whence.jacobian"}
    (circle,) = cycles(edges)
    assert {"whence.jets", "whence.jacobian"} <= set(circle)


LATE_FOR_SPEED = {
    "matplotlib",
    "netCDF4",
    "pandas",
    "scipy",
    "torch",
    "whence",
    "xarray",
    "zarr",
}
"""What may be imported inside a function: packages that are slow to import, and what needs them."""


@of_every_source
def test_an_import_inside_a_function_says_why(path):
    lines = TEXTS[path].split("\n")
    for function in ast.walk(TREES[path]):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                name = getattr(node, "module", None) or node.names[0].name
                if name.startswith("whence"):
                    assert "slow" in lines[node.lineno - 1], lines[node.lineno - 1]


def test_the_core_knows_nothing_of_pdes():
    for name in MODULES:
        if (
            re.match(
                r"whence\.(pinn|diagnosis|cli|explore|plots|studies|adapters)\b", name
            )
            or name == "whence"
        ):
            continue
        wrong = [m for m, _ in imported(name) if m.startswith("whence.pinn")]
        assert not wrong, f"{name} imports {wrong}"


# --- privacy ------------------------------------------------------------------------------------

FOREIGN = {
    "_C",
    "_current_level",
    "_functorch",
    "_inductor",
    "_is_view",
    "_pytree",
    "_repr_html_",
    "_version",
    "_cdata",
}
"""Private names of torch and pandas for which there is no public one."""


def own_names(tree):
    """Return the names that a module defines, as functions, classes, attributes or variables."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(
            node.ctx, ast.Store
        ):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@of_every_source
def test_no_private_name_of_another_module_is_used(path):
    tree = TREES[path]
    own = own_names(tree) | FOREIGN
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            assert node.attr in own, f"line {node.lineno}: {ast.unparse(node)}"
    for module, name in imported(module_name(path)):
        if module.startswith("whence") and name is not None:
            assert not is_private(name), f"{name} of {module}"


# --- words --------------------------------------------------------------------------------------

VAGUE = {"found", "given", "held", "said", "one", "own", "each", "told", "asked"}
"""Names of local variables that do not say what they hold."""

WORDS = {
    r"gradients? by (θ|the parameters)": "with respect to θ",
    r"\bTell whether\b": "Whether",
    r"\banew\b": "again",
    r"[Oo]ptimis(er|ation|ers)\b": "optimizer",
    r"[Nn]ormalis(e|ed|ation)\b": "normalize",
    r"[Ll]inearis(e|ed|ation)\b": "linearize",
    r"[Ii]nitialis(e|ed|ation)\b": "initialize",
    r"\bare no finite\b": "must be finite",
    r"\bhave not each\b": "needs one … per",
    r"\bare not told so\b": "exposes no …",
    r"the same with one more": "combine with",
    r"Share α of the former": "Smoothing factor",
}
"""Turns of phrase that an engineer of the field would not write, and what to write instead."""

RENAMED = {
    "and_also", "at_points", "placed", "shown_in_words", "doubts", "quick", "without",
    "_renewed", "_applied", "_stages", "_note", "go",
}  # fmt: skip
"""Former names of functions and methods."""

OLD_MODULES = {
    "unit", "watch", "given", "measured", "words", "randomness", "reweighting_",
}  # fmt: skip


@of_every_source
def test_the_prose_is_the_fields(path):
    for pattern, better in WORDS.items():
        match = re.search(pattern, TEXTS[path])
        assert match is None, f"{match.group(0)!r}: write {better!r}"


@of_every_source
def test_names_say_what_they_hold(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef):
            assert node.name not in RENAMED, f"line {node.lineno}: {node.name}"
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            assert not re.match(r"(LEAST|MOST|FEW)_", node.id), node.id
    assert path.stem not in OLD_MODULES


def test_vague_names_are_rare():
    """Parameters may be ``given``; what a function makes has a name of its own."""
    counts = Counter()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                counts[node.id] += node.id in VAGUE
    assert sum(counts.values()) <= 40, counts.most_common(12)


def test_one_word_for_one_thing():
    assert whence.GaussNewtonMatrix is not whence.pinn.GaussNewton
    assert not hasattr(whence, "GaussNewton")


# --- room to read -------------------------------------------------------------------------------


def body_of(function):
    """Return the statements of a function without its docstring."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return function.body[1:] if is_docstring else function.body


UNCOUNTED = (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop)


def room(path):
    """Return nodes, lines and blank lines of function bodies."""
    nodes = lines = blanks = 0
    rows = TEXTS[path].split("\n")
    for function in ast.walk(TREES[path]):
        if not isinstance(function, ast.FunctionDef) or not body_of(function):
            continue
        body = body_of(function)
        span = rows[body[0].lineno - 1 : body[-1].end_lineno]
        empty = sum(not row.strip() for row in span)
        blanks += empty
        lines += len(span) - empty
        for statement in body:
            nodes += sum(not isinstance(n, UNCOUNTED) for n in ast.walk(statement))
    return nodes, lines, blanks


def comments(path):
    tokens = tokenize.generate_tokens(io.StringIO(TEXTS[path]).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def test_the_package_has_room_to_read():
    nodes, lines, blanks = map(sum, zip(*map(room, SOURCES), strict=True))
    code = sum(bool(row.strip()) for text in TEXTS.values() for row in text.split("\n"))
    assert nodes / lines <= 6.0
    assert 100 * blanks / lines >= 6.0
    assert 1000 * sum(map(comments, SOURCES)) / code >= 40


@of_every_source
def test_no_module_is_dense_or_long(path):
    nodes, lines, _ = room(path)
    assert lines <= 40 or nodes / lines <= 8.5
    assert len(TEXTS[path].split("\n")) <= 600
    for function in ast.walk(TREES[path]):
        if isinstance(function, ast.FunctionDef) and body_of(function):
            body = body_of(function)
            assert body[-1].end_lineno - body[0].lineno < 60, function.name


def test_few_private_functions_are_used_once():
    once = private = 0
    for tree in TREES.values():
        names = Counter(
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
        )
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("_"):
                private += 1
                once += names[node.name] == 1
    assert once <= 0.4 * private, f"{once} of {private}"


def test_public_functions_have_docstrings():
    for path, tree in TREES.items():
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue

            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if not node.name.startswith("_") and "overload" not in decorators:
                assert ast.get_docstring(node), f"{path}: {node.name}"


# --- types -------------------------------------------------------------------------------------

PASSED_ON = {
    # Keyword arguments of another function, checked there.
    "attribution/result.py: __call__",
    "evaluation/ground_truth.py: lds_scores",
    "evaluation/ground_truth.py: leave_one_out_scores",
    "evaluation/leaving_out.py: leave_out",
    "evaluation/leaving_out.py: leave_one_out",
    "explore/session.py: retrained_without",
    "plots/style.py: color_bar",
    # An object of whichever class the catalogue has under a name.
    "cli/flags.py: build",
}


def public_functions(tree):
    """Yield public functions, and public methods of public classes."""
    for node in tree.body:
        is_public = not getattr(node, "name", "_").startswith("_")
        if isinstance(node, ast.ClassDef) and is_public:
            for member in node.body:
                name = getattr(member, "name", "_")
                if isinstance(member, ast.FunctionDef) and (
                    not name.startswith("_") or name in ("__init__", "__call__")
                ):
                    yield member
        elif isinstance(node, ast.FunctionDef) and is_public:
            yield node


def annotations(function):
    arguments = [
        *function.args.posonlyargs,
        *function.args.args,
        *function.args.kwonlyargs,
    ]
    arguments += filter(None, [function.args.vararg, function.args.kwarg])
    hints = [argument.annotation for argument in arguments] + [function.returns]
    return [hint for hint in hints if hint is not None]


def test_public_signatures_say_more_than_any():
    loose = set()
    for path, tree in TREES.items():
        for function in public_functions(tree):
            words = {
                word.id
                for hint in annotations(function)
                for word in ast.walk(hint)
                if isinstance(word, ast.Name)
            }
            if "Any" in words:
                loose.add(f"{path.relative_to(ROOT).as_posix()}: {function.name}")
    assert loose == PASSED_ON


def test_files_of_tests_have_names_of_their_own():
    """Two of one name in different folders are one module to pytest, which then runs neither."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
