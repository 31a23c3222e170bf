"""Imports point one way (design, section 4), and help waits for nothing heavy."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import playground

ROOT = Path(playground.__file__).parent
LEAVES = {"schema", "randomness", "products", "taps", "initialisations", "machine"}
TYPES = {"game", "parameters", *LEAVES}

ALLOWED: dict[str, set[str]] = {
    "schema": set(),
    "randomness": set(),
    "products": set(),
    "taps": set(),
    "initialisations": set(),
    "machine": set(),
    "parameters": set(),
    "game": {"parameters"},
    "nets": {"randomness", "taps", "initialisations"},
    "gradients": TYPES,
    "engine": {"optim", "gradients", *TYPES},
    "optim": {"optim", *TYPES},
    "probes": {"probes", "nets", *TYPES},
    "record": {"record"},
    "record.sinks": {"record", "schema"},
    "report": {"report", "record"},
    "report.drawing": {"report.drawing", "record"},
    "report.figures": {"report.figures", "report.drawing", "report.INSTRUMENTS", "record"},
}
"""{module or folder: what of ours it may import}; those not listed may import anything."""

EXCEPTIONS = {("record.reader", "run"), ("record.reader", "report")}
"""``run.player`` and ``run.figure`` look up their code when they are called."""


def imports(path: Path) -> set[str]:
    """Dotted names below the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            argument = node.args[0]
            names = [argument.value] if isinstance(argument, ast.Constant) else []
        else:
            continue
        found |= {name for name in names if name.split(".")[0] == "playground"}
    return {name.removeprefix("playground").lstrip(".") for name in found}


def modules() -> list[tuple[str, set[str]]]:
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 40
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts), imports(path)) for path in paths
    ]


MODULES = modules()


def inside(name: str, allowed: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[: i + 1]) in allowed for i in range(len(parts)))


@pytest.mark.parametrize(("name", "imported"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_one_way(name, imported):
    top, *rest = name.split(".")
    if rest and f"{top}.{rest[0]}" in ALLOWED:
        top = f"{top}.{rest[0]}"
    if top == "domains" and len(name.split(".")) > 2:
        allowed = {f"domains.{name.split('.')[1]}", "nets", *TYPES}
    elif top in ALLOWED:
        allowed = ALLOWED[top]
    else:
        return
    wrong = {i for i in imported if i and not inside(i, allowed)}
    wrong = {i for i in wrong if (name, i.split(".")[0]) not in EXCEPTIONS}
    assert not wrong, f"playground.{name} imports {sorted(wrong)}"


def test_config_modules_import_no_torch():
    """Not at the top; inside functions they may."""
    for path in [*ROOT.rglob("config.py"), ROOT / "schema.py", ROOT / "resume.py"]:
        tree = ast.parse(path.read_text())
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {
            name.split(".")[0]
            for node in top
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
            )
        }
        assert not names & {"torch", "gymnasium", "numpy", "sklearn"}, path


SCRIPT = """
import sys
from playground.__main__ import command
code = command(sys.argv[1:])
heavy = {"torch", "gymnasium", "pyarrow", "sklearn", "matplotlib"} & set(sys.modules)
sys.stderr.write(f"heavy {sorted(heavy)}")
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["problem=gan/ring", "--help"], 0),
        (["--version"], 0),
        (["problem=landscape/rosenbrok"], 2),
        (["optimizer.lr=-1"], 2),
    ],
)
def test_help_and_errors_import_nothing_heavy(arguments, code, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    assert "heavy []" in result.stderr
    assert not list(tmp_path.iterdir())
