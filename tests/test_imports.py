"""What a process may load: the serving one never TensorFlow, pandas, pyarrow or matplotlib."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("tensorflow", "keras", "pandas", "pyarrow", "matplotlib", "sklearn", "lightgbm")


@pytest.mark.parametrize(
    "code",
    [
        "import service.app",
        "import service.trial",
        "import data.config, data.journal",
        "import models.bundle, models.registry, models.scorer, models.indexes",
        "import watchnext, typer.testing\n"
        "result = typer.testing.CliRunner().invoke(watchnext.app, ['--help'])\n"
        "assert result.exit_code == 0 and 'serve' in result.output, result.output",
    ],
    ids=["service", "trial", "data", "models", "help"],
)
def test_it_loads_nothing_heavy(code: str) -> None:
    check = f"\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_check_above_can_fail() -> None:
    code = "import pyarrow, sys; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
