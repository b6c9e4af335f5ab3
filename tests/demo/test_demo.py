"""The demo as it runs: a model's own answers, with and without a medium."""

import os
import subprocess
import sys

from PIL import Image

from onethinker_jax.demo import __main__ as demo
from tests.places import ROOT
from tests.waiting import HANG_S


def test_a_models_own_answer_to_a_question_alone(model, tmp_path, capsys):
    assert demo.main([str(model), "What is this?", "--max-new-tokens", "4"]) == 0
    assert any(
        line.startswith("4 tokens after a prompt of ") for line in capsys.readouterr().out.splitlines()
    )


def test_a_video(model, video, tmp_path, capsys):
    out = tmp_path / "answer.jpg"
    flags = ["--max-new-tokens", "8", "--video-max-frames", "4", "--out", str(out)]
    assert demo.main([str(model), str(video), "What is this?", *flags]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Response\n")  # a fresh model writes no tags
    assert "warning: cut off after --max-new-tokens 8" in printed.splitlines()
    assert any(line.startswith("8 tokens after a prompt of ") for line in printed.splitlines())
    assert printed.endswith(f"picture: {out}\n")
    assert Image.open(out).width > 500


def test_an_image_in_a_process_without_torch(model, image, tmp_path):
    code = (
        "import sys; from onethinker_jax.demo import __main__ as demo; status = demo.main(sys.argv[1:]); "
        "print({'torch', 'transformers'} & set(sys.modules), status)"
    )
    arguments = [str(model), str(image), "What is this?", "--max-new-tokens", "4"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=HANG_S,
        check=False,
    )
    assert result.stdout.endswith("picture: street_answer.png\nset() 0\n"), result.stderr
    assert Image.open(tmp_path / "street_answer.png").width > 500
