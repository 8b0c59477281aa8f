"""Virtual environments for the libraries that benchmarks measure against.

    python benchmarks/rivals.py            builds all of them
    python benchmarks/rivals.py torch      builds one, and prints its interpreter

Each lives in ``$WATCHNEXT_HOME/rivals/<name>``, apart from the project's own, which none of these is part of. Where the
registry has a build of PyTorch for CPUs alone, pip prefers it.
"""

import fcntl
import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.home import Home


@dataclass(frozen=True)
class Rival:
    """An environment's ``packages``, with their dependencies; ``alone``: packages without them; ``borrow``: whether it
    sees this interpreter's packages behind its own (so that it runs on the same TensorFlow)."""

    packages: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    borrow: bool = False


RIVALS = {
    "torch": Rival(
        ("torch==2.13.0", "numpy", "pandas", "scikit-learn", "tqdm", "tensorboard", "requests"),
        ("deepctr-torch==0.3.0", "torch-rechub==0.9.0"),
    ),
    "pandas": Rival(("pandas==3.1.1", "numpy", "pyarrow")),
    "deepctr": Rival(alone=("deepctr==0.9.4",), borrow=True),
}


def python_of(name: str) -> Path:
    """The interpreter of a rival's environment, which is built if it is missing, or was built otherwise.

    Two processes that ask at once wait for each other.
    """
    rival, folder = RIVALS[name], Home.from_environment().root / "rivals" / name
    folder.mkdir(parents=True, exist_ok=True)
    python, built = folder / "bin" / "python", folder / "built.json"
    recipe = json.dumps([list(rival.packages), list(rival.alone), rival.borrow])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.is_file() or built.read_text() != recipe:
            print(f"building the environment {name!r}: this takes minutes", file=sys.stderr)
            _build(folder, python, rival)
            built.write_text(recipe)
    return python


def environment() -> dict[str, str]:
    """The variables to run a rival's interpreter with: ours, without what would lead it to our own packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def _build(folder: Path, python: Path, rival: Rival) -> None:
    venv.EnvBuilder(with_pip=True).create(folder)
    if rival.borrow:
        ours = [path for path in sys.path if path.endswith("site-packages")]
        place = next((folder / "lib").glob("python*/site-packages"))
        (place / "borrowed.pth").write_text("\n".join(ours) + "\n")
    for extra, packages in (((), rival.packages), (("--no-deps",), rival.alone)):
        if packages:
            command = [str(python), "-m", "pip", "install", "--quiet", *extra, *packages]
            subprocess.run(command, check=True, env=environment())


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RIVALS:
        print(python_of(chosen))
