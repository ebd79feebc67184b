"""The commands of docs/your-own-text.md, as they stand there, on a folder of three small domains."""

import json
import random
import re
import subprocess

import pandas as pd

import evaluate
import train
from tests.paths import ROOT
from tests.small_run import EIGHT_EXPERTS, SMALL

FAST = {
    "train.py": [*SMALL[1:], *EIGHT_EXPERTS, "trainer.max_steps=4", "logger=csv"],
    "evaluate.py": ["metrics.segment_lengths=[4,16]", "metrics.min_token_count=2", "threads=1"],
}
MAIN = {"train.py": train.main, "evaluate.py": evaluate.main}


def write_texts(folder):
    folder.mkdir()
    draw = random.Random(0)
    prose = "\n\n".join(" ".join(draw.choices(["the", "cat", "sat", "on", "a", "mat"], k=40)) for _ in range(40))
    (folder / "prose.txt").write_text(prose)  # a single document of data.source.max_characters
    (folder / "python").mkdir()
    for number in range(8):
        (folder / "python" / f"{number}.txt").write_text(f"def f{number}(x):\n    return x + {number}\n" * 20)
    rows = [" ".join(str(draw.randrange(1000)) for _ in range(60)) for _ in range(60)]
    (folder / "numbers.jsonl").write_text("".join(f'{{"text": "{row}"}}\n' for row in rows))


def test_three_commands_lead_from_a_folder_to_its_experts(command, monkeypatch, tmp_path, capsys):
    write_texts(tmp_path / "texts")
    page = (ROOT / "docs" / "your-own-text.md").read_text()
    commands = re.search(r"```bash\n(.*?)```", page, re.DOTALL)[1].splitlines()
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOE_TOY_DATA", str(tmp_path / "cache"))
    outputs = []
    for line in commands[:2]:
        python, script, *arguments = line.split()
        assert python == "python"
        assert command(script.removesuffix(".py"), *arguments, *FAST[script], main=MAIN[script]) == 0
        outputs.append("".join(capsys.readouterr()))
    outputs.append(subprocess.run(commands[2].split(), capture_output=True, text=True, check=True).stdout)
    assert "prose is small: its text is cut at" in outputs[0]
    assert re.search(r"Each token is seen: numbers [\d.]+ times, prose [\d.]+ times, python [\d.]+ times", outputs[0])
    report = tmp_path / "outputs" / "own" / "report"
    assert (report / "report.html").is_file()
    assert "the run's own text" in json.loads((report / "summary.json").read_text())["text"]["words"]
    experts = pd.read_csv(report / "tables" / "experts.csv")
    assert set(experts.domain.dropna()) <= {"numbers", "prose", "python"}
    assert len(experts) == 2 * 8
    assert outputs[2].splitlines()[0].split(",")[:3] == ["layer", "expert", "domain"]
