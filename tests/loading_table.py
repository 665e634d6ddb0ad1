"""Load the checkpoint family on several versions of transformers, and write the table in docs/loading.md.

    python tests/loading_table.py 4.52.4 4.57.6 5.0.0 5.24.0

makes a fresh environment for each version. It takes some minutes and is not part of the test run, which loads the
family on the versions that it is run with.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAMILY = ROOT / "tests" / "support" / "checkpoint_family.py"
PAGE = ROOT / "docs" / "loading.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"


def run_on(version: str, place: Path) -> dict:
    """The family's results on one version, from an environment made for it."""
    home = place / version
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet"]
    torch = next(
        line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, f"transformers=={version}", str(ROOT)], check=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hub")}
    done = subprocess.run([python, "-P", FAMILY], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)


def as_table(results: list[dict]) -> str:
    """Markdown: a row for each member, a column for each version, stock and ours."""
    versions = [result["transformers"] for result in results]
    lines = ["| checkpoint | " + " | ".join(f"{v} stock | {v} here" for v in versions) + " |"]
    lines.append("|---" * (1 + 2 * len(versions)) + "|")
    for name in results[0]["rows"]:
        cells = [cell for result in results for cell in result["rows"][name]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every version named on the command line and replace the table in the docs."""
    with tempfile.TemporaryDirectory() as place:
        table = as_table([run_on(version, Path(place)) for version in sys.argv[1:]])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
