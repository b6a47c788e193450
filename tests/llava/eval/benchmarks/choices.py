"""Score and export golden cases as a user does: through the two command lines."""

import json

from llava.eval import export, score


def run_score(name, root, answers, *flags):
    """Give the scores file that `python -m llava.eval.score` writes."""
    output = root / "scores.json"
    words = [name, "--data_root", str(root), "--answers", str(answers), "--output", str(output), *flags]
    score.main(words)
    return json.loads(output.read_text())


def run_export(name, root, answers, output):
    """Let `python -m llava.eval.export` write a submission."""
    words = [name, "--data_root", str(root), "--answers", str(answers), "--output", str(output)]
    export.main(words)
    return output


def answer_line(question_id, text, prompt="p"):
    return {"question_id": question_id, "prompt": prompt, "text": text}
