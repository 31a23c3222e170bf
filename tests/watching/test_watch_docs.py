"""The example of docs/watch.md prints what the page says."""

import subprocess
import sys
from pathlib import Path

import playground

PAGE = Path(playground.__file__).parent.parent / "docs" / "watch.md"


def test_the_example_prints_what_stands_below_it(here):
    blocks = PAGE.read_text().split("```")
    example, printed = blocks[1].removeprefix("python\n"), blocks[3].strip()
    (here / "example.py").write_text(example)
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True,
                          check=False, env={"PYTHONPATH": str(PAGE.parent.parent)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed
    assert (here / "runs/mine/figures/overview.png").exists()
