"""How do I answer every row of a CSV?"""

import tempfile
from pathlib import Path

from sleicl_chains import GrimoireStore, answer_file, load_task, solver, weak_model

ROWS = """\
id,text
1,I was charged twice this month
2,Where is my parcel?
3,
4,"Hello,
how do I change my password?"
"""
weak = weak_model("embedded:smollm2")  # quick and small; embedded:qwen2.5-coder-1.5b reads the guide better
task, grimoire = load_task("examples/support/task.toml"), GrimoireStore().get("support-d090011a")
chain = solver(weak, task, arm="simple", grimoire=grimoire)

with tempfile.TemporaryDirectory() as folder:
    rows, answers = Path(folder) / "messages.csv", Path(folder) / "answers.csv"
    rows.write_text(ROWS, encoding="utf-8")
    done = answer_file(chain, rows, answers)
    print(answers.read_text(encoding="utf-8"))
    print(f"{done.answered} of {done.rows} rows answered. {done.bad} bad row: {done.first_bad}")
