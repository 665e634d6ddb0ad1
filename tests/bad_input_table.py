"""Write the table of bad inputs in docs/audio.md: `python tests/bad_input_table.py`."""

import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

import bad_inputs
import fake_checkpoints

from alm2vec_integrations import ALM2VecEncoder

PAGE = Path(__file__).parents[1] / "docs" / "audio.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"


def as_table() -> str:
    """Markdown: what was tried, and what was said."""
    lines = ["| tried | said |", "|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        fake = fake_checkpoints.write(Path(place) / "fake")
        for number, name in enumerate(bad_inputs.CASES):
            folder = Path(place) / str(number)
            folder.mkdir()
            with ALM2VecEncoder(
                fake, trust_remote_code=True, device="cpu", allowed_audio_roots=folder / "inside"
            ) as encoder:
                lines.append(f"| {name} | {bad_inputs.said(folder, encoder, name)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Replace the table in the page."""
    warnings.simplefilter("ignore")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + as_table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
